"""A data set as arrays in memory: its pixels, its labels, and the number of its classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensor.errors import ConfigError
from .image_folder import FolderImages


@dataclass
class Arrays:
    """A data set on the CPU: images uint8 ``(n, height, width, channels)``, labels int64 ``(n,)`` below ``classes``.

    The images of a split may be files that are not read yet, ``FolderImages``. ``notes``: lines for whoever trains on
    them.
    """

    train_images: Tensor | FolderImages
    train_labels: Tensor
    test_images: Tensor | FolderImages
    test_labels: Tensor
    classes: int
    notes: tuple[str, ...] = ()

    def decoded(self) -> Arrays:
        """The same with all images in memory. Raises ``ConfigError`` for files that are no images."""
        return replace(self, train_images=decoded(self.train_images), test_images=decoded(self.test_images))


def decoded(images: Tensor | FolderImages) -> Tensor:
    """The images in memory, uint8 ``(n, height, width, channels)``; raises ``ConfigError`` for files that are none."""
    return images.decoded() if isinstance(images, FolderImages) else images


def subset(images: Tensor | FolderImages, positions: Tensor) -> Tensor | FolderImages:
    """The images at ``positions`` ``(m,)``, in that order; files stay files."""
    return images.subset(positions) if isinstance(images, FolderImages) else images[positions]


def check(arrays: Any, source: str) -> None:
    """Raise ``ConfigError`` unless ``arrays`` is an ``Arrays`` of tensors as its docstring says, none of them empty.

    ``source``: what gave it, for the message.
    """
    if not isinstance(arrays, Arrays):
        raise ConfigError(f"{source} must return tdcompress.data.sources.Arrays, got {type(arrays).__name__}")
    for split in ("train", "test"):
        images, labels = getattr(arrays, f"{split}_images"), getattr(arrays, f"{split}_labels")
        for name, value, dtype, dims in (("images", images, torch.uint8, 4), ("labels", labels, torch.int64, 1)):
            if not isinstance(value, Tensor) or value.dtype != dtype or value.dim() != dims or not value.numel():
                got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError(f"{source}: {split}_{name} must be {dtype} with {dims} dimensions, got {got}")
        if images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] > 4:
            raise ConfigError(
                f"{source}: {split}_images are (n, height, width, channels), {tuple(images.shape)} looks as if "
                "channels came first: use images.permute(0, 2, 3, 1)"
            )
        if len(images) != len(labels):
            raise ConfigError(f"{source}: {len(images)} {split} images, but {len(labels)} labels")
        if not 0 <= int(labels.min()) <= int(labels.max()) < arrays.classes:
            raise ConfigError(f"{source}: {split} labels must lie between 0 and {arrays.classes - 1}")
    if arrays.train_images.shape[3] != arrays.test_images.shape[3]:
        raise ConfigError(f"{source}: training and test images must have the same number of channels")


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 images ``(n, height, width, channels)`` as squares of ``size`` pixels, bilinear and antialiased."""
    if images.shape[1:3] == (size, size):
        return images
    chunks = [
        F.interpolate(chunk.permute(0, 3, 1, 2).float(), (size, size), mode="bilinear", antialias=True)
        for chunk in images.split(1000)
    ]
    return torch.cat([chunk.round().clamp(0, 255).byte().permute(0, 2, 3, 1) for chunk in chunks]).contiguous()
