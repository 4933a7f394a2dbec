"""Where images come from: scikit-learn's digits, torchvision's data sets, folders, or a user's own function."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.schema import DatasetConfig
from ..config.targets import call_target
from ..tensor.errors import ConfigError
from .clips import FolderClips
from .image_folder import UNREADABLE, FolderImages, listed, split_folders

DIGITS_SIZE = 28  # pixels; the 8x8 originals are enlarged, so that every arch for MNIST takes them


@dataclass
class Arrays:
    """A data set on the CPU: images uint8 ``(n, height, width, channels)``, labels int64 ``(n,)`` below ``classes``.

    The images may still be files, see ``find``.
    """

    train_images: Tensor | FolderImages
    train_labels: Tensor
    test_images: Tensor | FolderImages
    test_labels: Tensor
    classes: int

    def decoded(self) -> Arrays:
        """The same with all images in memory. Raises ``ConfigError`` for files that are no images."""
        train, test = (
            images.decoded() if isinstance(images, FolderImages) else images
            for images in (self.train_images, self.test_images)
        )
        return replace(self, train_images=train, test_images=test)


def load(config: DatasetConfig) -> Arrays:
    """``find``, with all images in memory."""
    return find(config).decoded()


def find(config: DatasetConfig) -> Arrays:
    """The data set at ``image_size``, with ``limit`` training images; those of a folder stay files.

    Raises ``ConfigError`` for files that are missing or are no images, and for values out of range.
    """
    _check_ranges(config)
    if config.target:
        arrays = call_target(config.target, "dataset.target")
        _check_arrays(arrays, "dataset.target")
    elif config.name in DATASETS:
        arrays = DATASETS[config.name](config)
    else:
        raise ConfigError(f"unknown dataset '{config.name}', known: {', '.join(sorted(DATASETS))}")
    if config.limit is not None:
        chosen = torch.randperm(len(arrays.train_labels), generator=torch.Generator().manual_seed(0))[: config.limit]
        images = arrays.train_images
        few = images.subset(chosen) if isinstance(images, FolderImages) else images[chosen]
        arrays = replace(arrays, train_images=few, train_labels=arrays.train_labels[chosen])
    if config.image_size is not None:
        train, test = (
            images if isinstance(images, FolderImages) else resized(images, config.image_size)
            for images in (arrays.train_images, arrays.test_images)
        )
        arrays = replace(arrays, train_images=train, test_images=test)
    if arrays.train_images.shape[1:] != arrays.test_images.shape[1:] or len(set(arrays.train_images.shape[1:3])) > 1:
        sizes = [f"{images.shape[2]}x{images.shape[1]}" for images in (arrays.train_images, arrays.test_images)]
        raise ConfigError(
            f"images are not square and of one size (train {sizes[0]}, test {sizes[1]}): set dataset.image_size"
        )
    return arrays


def _check_ranges(config: DatasetConfig) -> None:
    for key, low in (("image_size", 1), ("frames", 1), ("limit", 1), ("padding", 0), ("workers", 0)):
        value = getattr(config, key)
        if value is not None and value < low:
            raise ConfigError(f"dataset.{key}={value} must be at least {low}")


def _check_arrays(arrays: Any, source: str) -> None:
    if not isinstance(arrays, Arrays):
        raise ConfigError(f"{source} must return tdcompress.data.sources.Arrays, got {type(arrays).__name__}")
    for split in ("train", "test"):
        images, labels = getattr(arrays, f"{split}_images"), getattr(arrays, f"{split}_labels")
        for name, value, dtype, dims in (("images", images, torch.uint8, 4), ("labels", labels, torch.int64, 1)):
            if not isinstance(value, Tensor) or value.dtype != dtype or value.dim() != dims or not value.numel():
                got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError(f"{source}: {split}_{name} must be {dtype} with {dims} dimensions, got {got}")
        if len(images) != len(labels):
            raise ConfigError(f"{source}: {len(images)} {split} images, but {len(labels)} labels")
        if not 0 <= int(labels.min()) <= int(labels.max()) < arrays.classes:
            raise ConfigError(f"{source}: {split} labels must lie between 0 and {arrays.classes - 1}")
    if arrays.train_images.shape[3] != arrays.test_images.shape[3]:
        raise ConfigError(f"{source}: training and test images must have the same number of channels")


def resized(images: Tensor, size: int) -> Tensor:
    """Square uint8 images of another size, bilinear and antialiased."""
    if images.shape[1:3] == (size, size):
        return images
    chunks = [
        F.interpolate(chunk.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
        for chunk in images.split(1000)
    ]
    return torch.cat([chunk.round().clamp(0, 255).byte().permute(0, 2, 3, 1) for chunk in chunks]).contiguous()


def digits(config: DatasetConfig) -> Arrays:
    """The 1,797 UCI digits that come with scikit-learn; every fifth image of a class is for the test (364 in all)."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ConfigError("dataset=digits needs scikit-learn (pip install scikit-learn)")
    # Read where scikit-learn keeps it: importing the package takes longer than the first epoch.
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt") as file:
            table = torch.tensor([[int(float(value)) for value in row] for row in csv.reader(file)])
    except UNREADABLE as error:
        raise ConfigError(f"{path} cannot be read ({error}): install scikit-learn anew") from None
    images = (table[:, :64].reshape(-1, 8, 8, 1) * 255 / 16).round().byte()
    images, labels = resized(images, config.image_size or DIGITS_SIZE), table[:, 64]
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        test[(labels == digit).nonzero()[::5]] = True
    return Arrays(images[~test], labels[~test], images[test], labels[test], 10)


def _from_torchvision(name: str, folder: str, files: str) -> Callable[[DatasetConfig], Arrays]:
    """The loader of a torchvision class whose ``files`` lie in ``folder`` under the root."""

    def load_split(root: Path, train: bool) -> Any:
        import torchvision.datasets

        kind = getattr(torchvision.datasets, name)
        place = root / folder
        try:
            return kind(root, train=train, download=False)
        except UNREADABLE as error:
            missing = "not found" in str(error)  # torchvision's words: nothing else tells it from a file cut short
        if not missing:
            raise damaged(place)
        created = [path for path in (place, *place.parents) if not path.exists()]
        try:
            return kind(root, train=train, download=True)
        except UNREADABLE as error:
            for path in created:  # the innermost first; a folder that is not empty, or was there before, stays
                with suppress(OSError):
                    path.rmdir()
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]  # of the last mirror tried
            raise ConfigError(
                f"{name} is not whole in {place} and cannot be downloaded ({reason}): put {files} there, "
                f"or set dataset.root to the folder that has {folder}/"
            ) from None

    def damaged(place: Path, reason: str = "") -> ConfigError:
        told = f"{name} in {place} is damaged or unreadable" + (f" ({reason})" if reason else "")
        return ConfigError(f"{told}: delete {place} and it is downloaded anew, or put {files} there")

    def loader(config: DatasetConfig) -> Arrays:
        root = Path(config.root or "data").expanduser()
        train, test = load_split(root, True), load_split(root, False)
        arrays = Arrays(*_tensors(train), *_tensors(test), len(train.classes))
        try:
            _check_arrays(arrays, name)  # whole files that do not belong together are read without complaint
        except ConfigError as error:
            raise damaged(root / folder, str(error).removeprefix(f"{name}: ")) from None
        return arrays

    return loader


def _tensors(split: Any) -> tuple[Tensor, Tensor]:
    images = torch.as_tensor(split.data)
    return images if images.dim() == 4 else images[..., None], torch.as_tensor(split.targets)


def image_folder(config: DatasetConfig) -> Arrays:
    """Images under ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``), any format that Pillow reads."""
    return _folders(config, FolderImages)


def video_folder(config: DatasetConfig) -> Arrays:
    """Clips in such folders, any format that FFmpeg reads: ``frames`` of each, evenly spaced, stacked as channels."""
    if config.frames is None:
        raise ConfigError("dataset=video_folder needs dataset.frames, for example dataset.frames=6")
    return _folders(config, partial(FolderClips, frames=config.frames))


def _folders(config: DatasetConfig, kind: Callable[[Path, list[Path], int | None], FolderImages]) -> Arrays:
    train, test, classes = split_folders(config)
    (train_files, train_labels), (test_files, test_labels) = listed(train, classes), listed(test, classes)
    train_images, test_images = kind(train, train_files, config.image_size), kind(test, test_files, config.image_size)
    return Arrays(train_images, train_labels, test_images, test_labels, len(classes))


def shape(config: DatasetConfig) -> tuple[int, int, int]:
    """Channels, image size and classes, without reading all images where that can be avoided."""
    _check_ranges(config)
    if not config.target and config.name in SHAPES:
        channels, size, classes = SHAPES[config.name]
        return channels, config.image_size or size, classes
    arrays = find(config)
    return arrays.train_images.shape[3], arrays.train_images.shape[1], arrays.classes


IDX_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
DATASETS: dict[str, Callable[[DatasetConfig], Arrays]] = {
    "digits": digits,
    "mnist": _from_torchvision("MNIST", "MNIST/raw", IDX_FILES),
    "fashion_mnist": _from_torchvision("FashionMNIST", "FashionMNIST/raw", IDX_FILES),
    "cifar10": _from_torchvision(
        "CIFAR10", "cifar-10-batches-py", "data_batch_1 to data_batch_5, test_batch and batches.meta"
    ),
    "cifar100": _from_torchvision("CIFAR100", "cifar-100-python", "train, test and meta"),
    "image_folder": image_folder,
    "video_folder": video_folder,
}


SHAPES = {
    "digits": (1, DIGITS_SIZE, 10),
    "mnist": (1, 28, 10),
    "fashion_mnist": (1, 28, 10),
    "cifar10": (3, 32, 10),
    "cifar100": (3, 32, 100),
}
