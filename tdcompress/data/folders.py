"""A user's own data set in folders, one for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from ..config.schema import DatasetConfig
from ..tensor.errors import ConfigError
from .arrays import Arrays
from .clips import FolderClips, refuse_missing
from .image_folder import FolderImages

FOLDERS: dict[str, type[FolderImages]] = {"image_folder": FolderImages, "video_folder": FolderClips}
"""What lies in the folders of the data sets that are made of some, by the data set's name."""


def image_folder(config: DatasetConfig) -> Arrays:
    """Images under ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``), in any format that Pillow reads.

    They may lie in folders within these, and stay files. What is no image is left out, which a note says. Raises
    ``ConfigError`` for folders that are missing, empty, or have other classes than each other.
    """
    return _folders(config, FolderImages, FolderImages)


def video_folder(config: DatasetConfig) -> Arrays:
    """Clips in such folders, in any format that FFmpeg reads: ``config.frames`` of each, stacked as channels.

    They stay files. Raises ``ConfigError`` as ``image_folder`` does, and where ``frames`` or PyAV is missing.
    """
    refuse_missing()
    if config.frames is None:
        raise ConfigError("dataset=video_folder needs dataset.frames, for example dataset.frames=6")
    return _folders(config, FolderClips, partial(FolderClips, frames=config.frames))


def _folders(
    config: DatasetConfig, kind: type[FolderImages], made: Callable[[Path, list[Path], int | None], FolderImages]
) -> Arrays:
    train, test, classes = split_folders(config)
    splits: list[tuple[FolderImages, Tensor]] = []
    others: list[Path] = []
    broken: dict[Path, str] = {}
    for folder in (train, test):
        files, beside = listed(folder, classes, kind)
        others += beside
        if config.broken == "skip":
            broken |= made(folder, files, 1).broken()
            files = [path for path in files if path not in broken]
        labels = _labels(files, folder, classes, kind)
        splits.append((made(folder, files, config.image_size), labels))
    return Arrays(*splits[0], *splits[1], len(classes), _notes(train.parent, kind.kinds, others, broken))


def files_of(config: DatasetConfig) -> tuple[int, int, int]:
    """How many training files, test files and classes the folder of ``config`` has, by their names where these tell.

    Raises ``ConfigError`` for folders that are missing, empty, or have other classes than each other.
    """
    train, test, classes = split_folders(config)
    places = [folder / name for folder in (train, test) for name in classes]
    stamps = tuple(place.stat().st_mtime_ns for place in places)
    counts = [_count(folder, tuple(classes), config.name, stamps) for folder in (train, test)]
    return counts[0], counts[1], len(classes)


@lru_cache(maxsize=8)  # every run of a sweep asks, and there may be millions
def _count(folder: Path, classes: tuple[str, ...], name: str, stamps: tuple[int, ...]) -> int:
    """``name``: of the data set; ``stamps``: when the classes' folders were changed, and perhaps the number."""
    return len(listed(folder, classes, FOLDERS[name])[0])


def listed(folder: Path, classes: Sequence[str], kind: type[FolderImages]) -> tuple[list[Path], list[Path]]:
    """The files of this ``kind`` under ``folder``/<class>/, at any depth, class by class; and the other files there.

    Hidden ones are others, also where their folder is hidden.
    """
    files: list[Path] = []
    others = [path for path in sorted(folder.iterdir()) if path.is_file()]
    for name in classes:
        for path in sorted(_inside(folder / name)):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            (files if not hidden and kind.is_one(path) else others).append(path)
    return files, others


def _inside(folder: Path) -> Iterator[Path]:
    """The files under ``folder``; each of its folders once, whatever links lead to it."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in names)


def _labels(files: Sequence[Path], folder: Path, classes: Sequence[str], kind: type[FolderImages]) -> Tensor:
    """The positions ``(n,)`` of the files' classes. Raises ``ConfigError`` for a class without files."""
    positions = {name: position for position, name in enumerate(classes)}
    labels = [positions[path.relative_to(folder).parts[0]] for path in files]
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        raise ConfigError(f"class folder {folder / classes[empty[0]]} is empty: it has no {kind.kinds}")
    return torch.tensor(labels)


def _notes(root: Path, kinds: str, others: Sequence[Path], broken: Mapping[Path, str]) -> tuple[str, ...]:
    """What is said of files that are left out: a line of those that are not meant, and one of those that are broken."""
    notes = []
    if others:
        names = [f"{name} ({count})" if count > 1 else name for name, count in _counted(path.name for path in others)]
        notes.append(f"under {root} {_skipped(others)} as no {kinds} of a class: {_few(names, 5)}")
    if broken:
        named = [f"{path.relative_to(root)} ({reason})" for path, reason in broken.items()]
        notes.append(f"under {root} {_skipped(broken)} as {kinds} that cannot be read: {_few(named, 20)}")
    return tuple(notes)


def _skipped(files: Sized) -> str:
    return f"{len(files)} files are skipped" if len(files) > 1 else "1 file is skipped"


def _counted(names: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))


def _few(names: Sequence[str], most: int) -> str:
    """The first ``most`` of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
