"""Data sets that torchvision downloads and reads."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.schema import DatasetConfig
from ..config.targets import find_target
from ..tensor.errors import ConfigError
from .arrays import Arrays, check
from .image_folder import UNREADABLE


def downloaded(config: DatasetConfig, kind: str, folder: str, files: str) -> Arrays:
    """A data set of torchvision, from ``config.root`` (by default ./data), downloaded if it is not there and may be.

    ``kind``: the class's dotted path; ``folder``: where under the root its files lie; ``files``: their names, as they
    are told. Raises ``ConfigError`` for files that are missing and cannot be downloaded, are damaged, or do not belong
    together; a failed download leaves no folder behind.
    """
    root, name = Path(config.root or "data").expanduser(), kind.rpartition(".")[2]
    train, test = (_split(root, kind, folder, files, train, config.download) for train in (True, False))
    arrays = Arrays(*_tensors(train), *_tensors(test), len(train.classes))
    try:
        check(arrays, name)  # whole files that do not belong together are read without complaint
    except ConfigError as error:
        raise _damaged(root, kind, folder, files, str(error).removeprefix(f"{name}: ")) from None
    return arrays


def _split(root: Path, kind: str, folder: str, files: str, train: bool, download: bool) -> Any:
    """torchvision's object of one split."""
    place, name, made = root / folder, kind.rpartition(".")[2], find_target(kind, "dataset")
    try:
        return made(root, train=train, download=False)
    except UNREADABLE as error:
        missing = "not found" in str(error)  # torchvision's words: nothing else tells it from a file cut short
    if not missing:
        raise _damaged(root, kind, folder, files)
    if not download:
        raise ConfigError(f"{name} is not whole in {place}, and dataset.download=false: put {files} there")
    created = [path for path in (place, *place.parents) if not path.exists()]
    try:
        return made(root, train=train, download=True)
    except UNREADABLE as error:
        for path in created:  # the innermost first; a folder that is not empty, or was there before, stays
            with suppress(OSError):
                path.rmdir()
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]  # of the last mirror tried
        raise ConfigError(
            f"{name} is not whole in {place} and cannot be downloaded ({reason}): put {files} there, "
            f"or set dataset.root to the folder that has {folder}/"
        ) from None


def _damaged(root: Path, kind: str, folder: str, files: str, reason: str = "") -> ConfigError:
    place, name = root / folder, kind.rpartition(".")[2]
    told = f"{name} in {place} is damaged or unreadable" + (f" ({reason})" if reason else "")
    return ConfigError(f"{told}: delete {place} and it is downloaded anew, or put {files} there")


def _tensors(split: Any) -> tuple[Tensor, Tensor]:
    """Images ``(n, height, width, channels)`` and labels ``(n,)`` of a split of torchvision's."""
    images = torch.as_tensor(split.data)
    return images if images.dim() == 4 else images[..., None], torch.as_tensor(split.targets)
