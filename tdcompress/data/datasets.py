"""Data sets on the device where they fit, and streamed where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.schema import DatasetConfig
from ..device.memory import free_memory
from .arrays import Arrays, decoded, subset
from .batches import Batches
from .folders import FOLDERS, files_of
from .image_folder import FolderImages
from .sources import find
from .stream import StreamedDataset, read
from .validation import held_out

Part = tuple[Tensor | FolderImages, Tensor]  # of a data set: images and their labels

_NAMED = {"train": "training images", "validation": "held-out images", "test": "test images", "classes": "classes"}
_SAME = 0.5  # of 255: nearer than that other decoders may leave the statistics of the same files
_SHARE = 0.5  # of the free memory that data may take: the rest is for training
_WORKERS = 8


class DeviceDataset(Batches):
    """A split held on the device: ``images`` is a uint8 tensor ``(n, size, size, channels)``, padded once for all."""

    def __init__(self, images: Tensor, *args: Any, **options: Any) -> None:
        super().__init__(images, *args, **options)
        self.images = self._padded(images).to(self.device)

    def stored(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        # One copy to the device for all of them.
        for index in torch.cat(list(batches)).to(self.device).split([len(batch) for batch in batches]):
            yield self.images, index


@dataclass(frozen=True)
class Splits:
    """A data set as it is learned. ``validation``: images held out of the training ones; None where none are."""

    train: Batches
    test: Batches
    classes: int
    validation: Batches | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each split has, and the number of classes."""
        held_out = 0 if self.validation is None else len(self.validation)
        return {"train": len(self.train), "validation": held_out, "test": len(self.test), "classes": self.classes}

    def changes(self, sizes: Mapping[str, int] | None, normalisation: Mapping[str, Sequence[float]]) -> list[str]:
        """How they differ from data that had these ``sizes`` and ``Batches.normalisation``, as far as either is known.

        By numbers first; where these agree, by the mean and the standard deviation of the training pixels, which tell
        other images from these, not one image from another.
        """
        found = changes(self.sizes if sizes is None else sizes, self.sizes)
        for key, then in normalisation.items() if not found else ():
            now = self.train.normalisation[key]
            if len(then) != len(now) or max(abs(a - b) for a, b in zip(then, now, strict=True)) > _SAME:
                found.append(f"{key} of the training pixels {_few(then)} then, {_few(now)} now")
        return found


def changes(then: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """How the sizes of a data set, see ``Splits.sizes``, have changed."""
    return [f"{then[key]} {said} then, {now[key]} now" for key, said in _NAMED.items() if then[key] != now[key]]


def changed_files(config: DatasetConfig, sizes: Mapping[str, int]) -> list[str]:
    """How the files of a folder differ in number from data of these ``sizes``, see ``Splits.sizes``.

    Of other data nothing is known so, nor of a folder that is not there, or some of whose files are left out. Raises
    ``ConfigError`` for a folder that holds no data set any more.
    """
    if config.target or config.name not in FOLDERS or config.broken != "fail" or not Path(config.root or "").is_dir():
        return []
    train, test, classes = files_of(config)
    train = train if config.limit is None else min(train, config.limit)
    now = {"train": train - sizes["validation"], "validation": sizes["validation"], "test": test, "classes": classes}
    return changes(sizes, now)


def _few(values: Sequence[float]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


def datasets(config: DatasetConfig, device: torch.device, log: Callable[[str], Any] = print, seed: int = 0) -> Splits:
    """The splits, normalised by the statistics of the images that are trained on, and the number of classes.

    All are held on ``device`` if together they fit into half of its free memory, and streamed otherwise, which ``log``
    is told in a line, as it is told the data set's notes; ``config.stream`` overrules. Either way gives the same
    batches; only the training split is augmented. ``seed`` is the run's, see ``config.validation_seed``. Raises
    ``ConfigError`` as ``sources.find`` and ``validation.held_out`` do.
    """
    arrays = find(config)
    for note in arrays.notes:
        log(f"data: {note}")
    parts = _parts(arrays, config.validation, seed if config.validation_seed is None else config.validation_seed)
    if "validation" in parts:
        held, count = len(parts["validation"][1]), len(arrays.train_labels)
        log(f"data: {held:,} of {count:,} training images are held out for validation")
    needed, free = _bytes(parts, config.padding), free_memory(device)
    streamed = config.stream if config.stream is not None else needed > _SHARE * free
    workers = config.workers if config.workers is not None else min(_WORKERS, torch.get_num_threads())
    served: Callable[..., Batches] = DeviceDataset
    if streamed:
        log(f"data: {needed / 1e6:,.0f} MB ({free / 1e6:,.0f} MB free on {device}), streamed by {workers} workers")
        served = partial(StreamedDataset, workers=workers)
    else:
        parts = {name: (decoded(images), labels) for name, (images, labels) in parts.items()}
    mean, std = statistics(_chunks(parts["train"][0], workers))
    normalised: dict[str, Any] = {"device": device, "mean": mean, "std": std}
    augmented = {**normalised, "padding": config.padding, "flip": config.flip}
    made = {name: served(*part, **(augmented if name == "train" else normalised)) for name, part in parts.items()}
    return Splits(**made, classes=arrays.classes)


def _parts(arrays: Arrays, fraction: float, seed: int) -> dict[str, Part]:
    """Images and labels of the splits by their names, ``fraction`` of the training images being held out."""
    test = arrays.test_images, arrays.test_labels
    if fraction == 0:
        return {"train": (arrays.train_images, arrays.train_labels), "test": test}
    held = held_out(arrays.train_labels, fraction, seed)
    train, validation = (
        (subset(arrays.train_images, chosen), arrays.train_labels[chosen])
        for chosen in ((~held).nonzero().flatten(), held.nonzero().flatten())
    )
    return {"train": train, "validation": validation, "test": test}


def _bytes(parts: Mapping[str, Part], padding: int) -> int:
    """Bytes that the splits take on a device, the training images with their padding."""
    count, size, _, channels = parts["train"][0].shape
    others = sum(math.prod(images.shape) for name, (images, _) in parts.items() if name != "train")
    return int(count * (size + 2 * padding) ** 2 * channels + others)


def _chunks(images: Tensor | FolderImages, workers: int) -> Iterable[Tensor]:
    """All images, uint8 ``(.., height, width, channels)``, some at a time; files are read by ``workers`` processes."""
    if isinstance(images, Tensor):
        return images.split(1000)
    return read(images, torch.arange(len(images)).split(100), workers)


def statistics(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, exactly, from the histogram of pixel values.

    ``images``: uint8 tensors ``(.., channels)``. The standard deviation of a channel that is the same everywhere is
    given as 1: normalised, it is 0.
    """
    values = torch.arange(256, dtype=torch.float64)
    counts: Any = sum(map(_histograms, images))
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    return mean.float(), torch.where(variance > 0, variance, 1).sqrt().float()


def _histograms(images: Tensor) -> Tensor:
    """How often each value 0..255 stands in each channel of uint8 images: ``(channels, 256)``."""
    return torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in images.unbind(-1)])
