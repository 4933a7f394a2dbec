"""Images in files: their paths and shape are known at once, their pixels are decoded when they are asked for."""

from __future__ import annotations

import pickle
import struct
import tarfile
import zlib
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

from ..device.threads import in_threads
from ..tensor.errors import ConfigError

# What readers of damaged files raise, whatever their documentation says.
UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, TypeError, LookupError, AssertionError, SyntaxError, RuntimeError, EOFError),
    *(struct.error, zlib.error, tarfile.TarError, pickle.UnpicklingError),
)


LEAVE_OUT = " (dataset.broken=skip leaves such files out)"


class FolderImages:
    """Colour images in files, indexed like a uint8 tensor ``(n, height, width, 3)``.

    ``size``: the side of a square in pixels that each is brought to; None: as stored, all of the first one's size.
    """

    kind, kinds, channels = "an image", "images", 3

    def __init__(self, folder: Path, files: Sequence[Path], size: int | None) -> None:
        self.folder, self.files, self.size = folder, list(files), size
        high, wide = (size, size) if size is not None else self.read(self.files[0]).shape[:2]
        self.shape = (len(self.files), high, wide, self.channels)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a file is meant to be an image: by its name, and where that does not tell, by its first bytes."""
        if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
            return True
        try:
            with Image.open(path):
                return True
        except UNREADABLE:
            return False
        except Image.DecompressionBombError:
            return True

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, positions: Sequence[int]) -> Tensor:
        """The images at these positions, uint8 ``(b, height, width, channels)``.

        Raises ``ConfigError`` for a file that is no image, and for images that are not of one size.
        """
        return self._stacked([self.read(self.files[position]) for position in positions])

    def decoded(self) -> Tensor:
        """All images, uint8 ``(n, height, width, channels)``; raises as ``[]`` does."""
        return self._stacked(in_threads(self.read, self.files))

    def subset(self, positions: Tensor) -> FolderImages:
        """The images at ``positions`` ``(m,)``, in that order, still as files."""
        few = copy(self)
        few.files = [self.files[position] for position in positions.tolist()]
        few.shape = (len(few.files), *self.shape[1:])
        return few

    def read(self, path: Path) -> Tensor:
        """One file, uint8 ``(height, width, channels)``. Raises ``ConfigError`` where that cannot be done."""
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

    def broken(self) -> dict[Path, str]:
        """The files that cannot be read, each with the reason. All are read, so this takes as long as ``decoded``."""

        def told(path: Path) -> str | None:
            try:
                self.read(path)
            except ConfigError as error:
                return str(error).removesuffix(LEAVE_OUT).rpartition(" can be read: ")[2]
            return None

        reasons = zip(self.files, in_threads(told, self.files), strict=True)
        return {path: reason for path, reason in reasons if reason is not None}

    def unreadable(self, path: Path, error: Exception) -> ConfigError:
        """The error to raise for a file because of which its reader raised ``error``: one line with the reason."""
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        return ConfigError(f"{path} is not {self.kind} that can be read: {reason}{LEAVE_OUT}")

    def _stacked(self, images: list[Tensor]) -> Tensor:
        """One tensor of images that must all be of the size that ``shape`` says."""
        shapes = {tuple(image.shape[:2]) for image in images} | {self.shape[1:3]}
        if len(shapes) > 1:
            sizes = ", ".join(f"{width}x{height}" for height, width in sorted(shapes)[:3])
            raise ConfigError(f"the files under {self.folder} are not of one size ({sizes}): set dataset.image_size")
        return torch.stack(images)
