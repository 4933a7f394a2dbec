"""A user's own data set in folders, one for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..config.schema import DatasetConfig
from ..tensor.errors import ConfigError
from .arrays import Arrays
from .clips import FolderClips
from .image_folder import FolderImages


def image_folder(config: DatasetConfig) -> Arrays:
    """Images under ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``), in any format that Pillow reads.

    They stay files. Raises ``ConfigError`` for folders that are missing, empty, or have other classes than each other.
    """
    return _folders(config, FolderImages)


def video_folder(config: DatasetConfig) -> Arrays:
    """Clips in such folders, in any format that FFmpeg reads: ``config.frames`` of each, stacked as channels.

    They stay files. Raises ``ConfigError`` as ``image_folder`` does, and where ``frames`` or PyAV is missing.
    """
    if config.frames is None:
        raise ConfigError("dataset=video_folder needs dataset.frames, for example dataset.frames=6")
    return _folders(config, partial(FolderClips, frames=config.frames))


def _folders(config: DatasetConfig, kind: Callable[[Path, list[Path], int | None], FolderImages]) -> Arrays:
    train, test, classes = split_folders(config)
    (train_files, train_labels), (test_files, test_labels) = listed(train, classes), listed(test, classes)
    train_images, test_images = kind(train, train_files, config.image_size), kind(test, test_files, config.image_size)
    return Arrays(train_images, train_labels, test_images, test_labels, len(classes))


def listed(folder: Path, classes: Sequence[str]) -> tuple[list[Path], Tensor]:
    """The files under ``folder``/<class>/ and their labels ``(n,)``, the positions of their classes."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).iterdir() if not path.name.startswith("."))
        if not found:
            raise ConfigError(f"class folder {folder / name} is empty")
        files += found
        labels += [label] * len(found)
    return files, torch.tensor(labels)


def split_folders(config: DatasetConfig) -> tuple[Path, Path, list[str]]:
    """The folders of the training and the test files under ``config.root``, and the classes that both have."""
    if not config.root:
        raise ConfigError(f"dataset={config.name} needs dataset.root=DIR, with DIR/train/<class>/, DIR/test/<class>/")
    place = Path(config.root).expanduser()
    train, test = place / "train", place / "test" if (place / "test").is_dir() else place / "val"
    for folder in (train, test):
        if not folder.is_dir():
            raise ConfigError(
                f"dataset.root={place} has no folder {folder.name}/ (train/ and test/ or val/ are needed)"
            )
    classes = _classes(train)
    if _classes(test) != classes:
        odd = sorted(set(classes) ^ set(_classes(test)))
        raise ConfigError(f"the classes under {train} and {test} differ: {', '.join(odd[:5])}")
    return train, test, classes


def _classes(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise ConfigError(f"{folder} has no class folders")
    return names
