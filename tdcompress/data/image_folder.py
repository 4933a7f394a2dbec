"""A folder of images, one folder a class: listed at once, decoded when asked for."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from ..config.schema import DatasetConfig
from ..tensor.errors import ConfigError

# What readers of damaged files raise, whatever their documentation says.
UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, TypeError, LookupError, AssertionError, SyntaxError, RuntimeError, EOFError),
    *(struct.error, zlib.error, tarfile.TarError, pickle.UnpicklingError),
)


class FolderImages:
    """Colour images in files, indexed like a uint8 tensor ``(n, height, width, 3)``.

    ``size``: the side of a square in pixels that each is brought to; None: as stored, all of the first one's size.
    """

    kind, channels = "an image", 3

    def __init__(self, folder: Path, files: Sequence[Path], size: int | None) -> None:
        self.folder, self.files, self.size = folder, list(files), size
        high, wide = (size, size) if size is not None else self.read(self.files[0]).shape[:2]
        self.shape = (len(self.files), high, wide, self.channels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, positions: Sequence[int]) -> Tensor:
        """The images at these positions, uint8 ``(b, height, width, channels)``.

        Raises ``ConfigError`` for a file that is no image, and for images that are not of one size.
        """
        return self._stacked([self.read(self.files[position]) for position in positions])

    def decoded(self) -> Tensor:
        """All of them."""
        with ThreadPoolExecutor() as pool:
            return self._stacked(list(pool.map(self.read, self.files)))

    def subset(self, positions: Tensor) -> FolderImages:
        """Those at ``positions``, in that order."""
        few = copy(self)
        few.files = [self.files[position] for position in positions.tolist()]
        few.shape = (len(few.files), *self.shape[1:])
        return few

    def read(self, path: Path) -> Tensor:
        """One file, uint8 ``(height, width, channels)``. Raises ``ConfigError`` where that cannot be done."""
        import numpy
        from PIL import Image

        broken: tuple[type[Exception], ...] = (*UNREADABLE, Image.DecompressionBombError)
        try:
            with Image.open(path) as file:
                if file.mode.startswith(("I", "F")):  # Pillow would cut them off at 255
                    raise ValueError(f"its pixels have more than 8 bits ({file.mode})")
                image = file.convert("RGB")
        except broken as error:
            raise self.unreadable(path, error) from None
        if self.size is not None and image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(numpy.array(image))

    def unreadable(self, path: Path, error: Exception) -> ConfigError:
        """What is said of a file that a reader refused."""
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        return ConfigError(f"{path} is not {self.kind} that can be read: {reason}")

    def _stacked(self, images: list[Tensor]) -> Tensor:
        shapes = {tuple(image.shape[:2]) for image in images} | {self.shape[1:3]}
        if len(shapes) > 1:
            sizes = ", ".join(f"{width}x{height}" for height, width in sorted(shapes)[:3])
            raise ConfigError(f"the files under {self.folder} are not of one size ({sizes}): set dataset.image_size")
        return torch.stack(images)


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
