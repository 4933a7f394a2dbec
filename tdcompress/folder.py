"""A folder of images, one folder a class: listed at once, decoded when asked for."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from .config import ConfigError

# What readers of damaged files raise, whatever their documentation says.
UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, TypeError, LookupError, AssertionError, SyntaxError, RuntimeError, EOFError),
    *(struct.error, zlib.error, tarfile.TarError, pickle.UnpicklingError),
)


class FolderImages:
    """Colour images in files, indexed like a uint8 tensor ``(n, height, width, 3)``.

    ``size``: the side of a square in pixels that each is brought to; None: as stored, all of the first one's size.
    """

    def __init__(self, folder: Path, files: Sequence[Path], size: int | None) -> None:
        self.folder, self.files, self.size = folder, list(files), size
        high, wide = (size, size) if size is not None else _decoded(self.files[0], None).shape[:2]
        self.shape = (len(self.files), high, wide, 3)

    @classmethod
    def listed(cls, folder: Path, classes: Sequence[str], size: int | None) -> tuple[FolderImages, Tensor]:
        """The images under ``folder``/<class>/ and their labels ``(n,)``, the positions of their classes."""
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = sorted(path for path in (folder / name).iterdir() if not path.name.startswith("."))
            if not found:
                raise ConfigError(f"class folder {folder / name} is empty")
            files += found
            labels += [label] * len(found)
        return cls(folder, files, size), torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, positions: Sequence[int]) -> Tensor:
        """The images at these positions, uint8 ``(b, height, width, 3)``.

        Raises ``ConfigError`` for a file that is no image, and for images that are not of one size.
        """
        return self._stacked([_decoded(self.files[position], self.size) for position in positions])

    def decoded(self) -> Tensor:
        """All of them."""
        with ThreadPoolExecutor() as pool:
            return self._stacked(list(pool.map(lambda path: _decoded(path, self.size), self.files)))

    def subset(self, positions: Tensor) -> FolderImages:
        """Those at ``positions``, in that order."""
        return FolderImages(self.folder, [self.files[position] for position in positions.tolist()], self.size)

    def _stacked(self, images: list[Tensor]) -> Tensor:
        shapes = {tuple(image.shape[:2]) for image in images} | {self.shape[1:3]}
        if len(shapes) > 1:
            sizes = ", ".join(f"{width}x{height}" for height, width in sorted(shapes)[:3])
            raise ConfigError(f"the images under {self.folder} are not of one size ({sizes}): set dataset.image_size")
        return torch.stack(images)


def split_folders(root: str | None) -> tuple[Path, Path, list[str]]:
    """The folders of the training and the test images under ``root``, and the classes that both have."""
    if not root:
        raise ConfigError("dataset=image_folder needs dataset.root=DIR, with DIR/train/<class>/ and DIR/test/<class>/")
    place = Path(root).expanduser()
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


def _decoded(path: Path, size: int | None) -> Tensor:
    import numpy
    from PIL import Image

    broken: tuple[type[Exception], ...] = (*UNREADABLE, Image.DecompressionBombError)
    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):  # Pillow would cut them off at 255
                raise ValueError(f"its pixels have more than 8 bits ({file.mode})")
            image = file.convert("RGB")
    except broken as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path} is not an image that can be read: {reason}") from None
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(numpy.array(image))
