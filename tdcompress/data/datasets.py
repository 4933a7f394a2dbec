"""Data sets on the device where they fit, and streamed where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.schema import DatasetConfig
from ..device.memory import free_memory
from .batches import Batches
from .image_folder import FolderImages
from .sources import Arrays, find
from .stream import StreamedDataset, read

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


def datasets(
    config: DatasetConfig, device: torch.device, log: Callable[[str], Any] = print
) -> tuple[Batches, Batches, int]:
    """The training and test splits, normalised by the training images' statistics, and the number of classes.

    Both are held on ``device`` if together they fit into half of its free memory, and streamed otherwise, which ``log``
    is told in a line; ``config.stream`` overrules. Either way gives the same batches; only the training split is
    augmented. Raises ``ConfigError`` as ``sources.find`` does.
    """
    arrays = find(config)
    needed, free = _bytes(arrays, config.padding), free_memory(device)
    streamed = config.stream if config.stream is not None else needed > _SHARE * free
    workers = config.workers if config.workers is not None else min(_WORKERS, torch.get_num_threads())
    if streamed:
        log(f"data: {needed / 1e6:,.0f} MB ({free / 1e6:,.0f} MB free on {device}), streamed by {workers} workers")
    else:
        arrays = arrays.decoded()
    mean, std = statistics(_parts(arrays.train_images, workers))
    normalised: dict[str, Any] = {"device": device, "mean": mean, "std": std}
    augmented = {**normalised, "padding": config.padding, "flip": config.flip}
    if streamed:
        return (
            StreamedDataset(arrays.train_images, arrays.train_labels, workers=workers, **augmented),
            StreamedDataset(arrays.test_images, arrays.test_labels, workers=workers, **normalised),
            arrays.classes,
        )
    assert isinstance(arrays.train_images, Tensor) and isinstance(arrays.test_images, Tensor)  # decoded
    return (
        DeviceDataset(arrays.train_images, arrays.train_labels, **augmented),
        DeviceDataset(arrays.test_images, arrays.test_labels, **normalised),
        arrays.classes,
    )


def _bytes(arrays: Arrays, padding: int) -> int:
    """Bytes that both splits take on a device, the training images with their padding."""
    count, size, _, channels = arrays.train_images.shape
    return count * (size + 2 * padding) ** 2 * channels + math.prod(arrays.test_images.shape)


def _parts(images: Tensor | FolderImages, workers: int) -> Iterable[Tensor]:
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
