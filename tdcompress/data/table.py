"""Which data sets there are: what figures call them, their shapes, and what loads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..config.targets import Target

DIGITS_SIZE = 28  # pixels; the 8x8 originals are enlarged, so that every arch for MNIST takes them


@dataclass(frozen=True)
class Dataset:
    """A data set that has a name.

    ``label``: what figures and pages call it. ``load``: from a ``DatasetConfig`` to ``Arrays``. ``shape``: channels,
    image size in pixels, and classes, as they are loaded; None where that depends on the user's files. ``folder``:
    where under the root its files lie once they are downloaded; None where nothing is.
    """

    label: str
    load: Callable[..., Any]
    shape: tuple[int, int, int] | None = None
    folder: str | None = None


def _torchvision(label: str, kind: str, folder: str, files: str, shape: tuple[int, int, int]) -> Dataset:
    load = partial(Target("tdcompress.data.downloads.downloaded"), kind=f"torchvision.datasets.{kind}", files=files)
    return Dataset(label, partial(load, folder=folder), shape, folder)


IDX_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
CIFAR_FILES = "data_batch_1 to data_batch_5, test_batch and batches.meta"
DATASETS = {
    "digits": Dataset(
        "UCI digits", partial(Target("tdcompress.data.digits.digits"), size=DIGITS_SIZE), (1, DIGITS_SIZE, 10)
    ),
    "mnist": _torchvision("MNIST", "MNIST", "MNIST/raw", IDX_FILES, (1, 28, 10)),
    "fashion_mnist": _torchvision("Fashion-MNIST", "FashionMNIST", "FashionMNIST/raw", IDX_FILES, (1, 28, 10)),
    "cifar10": _torchvision("CIFAR-10", "CIFAR10", "cifar-10-batches-py", CIFAR_FILES, (3, 32, 10)),
    "cifar100": _torchvision("CIFAR-100", "CIFAR100", "cifar-100-python", "train, test and meta", (3, 32, 100)),
    "image_folder": Dataset("image folder", Target("tdcompress.data.folders.image_folder")),
    "video_folder": Dataset("video folder", Target("tdcompress.data.folders.video_folder")),
}
"""By the name that ``dataset=`` takes; the loaders, and with them torch, are imported when they are called."""
