"""The data set that a configuration asks for: one of the table, or what a user's own function returns."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..config.schema import DatasetConfig
from ..config.targets import call_target
from ..tensor.errors import ConfigError
from .arrays import Arrays, check, resized, subset
from .image_folder import FolderImages
from .table import DATASETS

__all__ = ["DATASETS", "Arrays", "find", "load", "shape"]


def load(config: DatasetConfig) -> Arrays:
    """``find``, with all images in memory. Raises ``ConfigError`` for files that are no images, too."""
    return find(config).decoded()


def find(config: DatasetConfig) -> Arrays:
    """The data set that ``config`` names, at its ``image_size`` and with its ``limit`` of training images.

    Images of a folder stay files, to be decoded when they are asked for. Raises ``ConfigError`` for an unknown name,
    files that are missing, values out of range, a user's own loader that returns what is no data set, and images that
    are not square and of one size.
    """
    _check_ranges(config)
    if config.target:
        arrays = call_target(config.target, "dataset.target")
        check(arrays, "dataset.target")
    elif config.name in DATASETS:
        arrays = DATASETS[config.name].load(config)
    else:
        raise ConfigError(f"unknown dataset '{config.name}', known: {', '.join(sorted(DATASETS))}")
    if config.limit is not None:
        if config.limit > len(arrays.train_labels):
            raise ConfigError(
                f"dataset.limit={config.limit} is more than the {len(arrays.train_labels):,} training images that "
                "there are; dataset.limit=null takes them all"
            )
        chosen = torch.randperm(len(arrays.train_labels), generator=torch.Generator().manual_seed(0))[: config.limit]
        few = subset(arrays.train_images, chosen)
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


def shape(config: DatasetConfig) -> tuple[int, int, int]:
    """Channels, image size in pixels and classes of what ``find`` gives, from the table where it knows them.

    Raises ``ConfigError`` as ``find`` does where the data have to be looked at.
    """
    _check_ranges(config)
    known = None if config.target or config.name not in DATASETS else DATASETS[config.name].shape
    if known is not None:
        channels, size, classes = known
        return channels, config.image_size or size, classes
    arrays = find(config)
    return arrays.train_images.shape[3], arrays.train_images.shape[1], arrays.classes


def _check_ranges(config: DatasetConfig) -> None:
    for key, low in (("image_size", 1), ("frames", 1), ("limit", 1), ("padding", 0), ("workers", 0)):
        value = getattr(config, key)
        if value is not None and value < low:
            raise ConfigError(f"dataset.{key}={value} must be at least {low}")
    if config.frames is not None and config.name != "video_folder" and not config.target:
        raise ConfigError(f"dataset.frames={config.frames} is for clips: leave it out, or use dataset=video_folder")
    if not 0 <= config.validation <= 0.5:
        raise ConfigError(f"dataset.validation={config.validation:g} must lie between 0 and 0.5")
