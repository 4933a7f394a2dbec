"""Files of tensors, read without running code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from .files import RunError


class Damaged(RunError):
    """A file whose bytes are not those that were written."""


def read(path: Path, archive: bool = False) -> Any:
    """Tensors and plain values from a file that ``torch.save`` wrote, on the CPU.

    Files of old versions of torch are no archives: ``archive`` says that this one must be. Raises ``Damaged``, or
    ``RunError`` for a file that may not be read or holds more than that.
    """
    try:
        # torch.load does not compare the checksums of the archive: a flipped bit would pass as a weight.
        if archive or zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as members:
                damaged = members.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RunError(f"{path} is damaged or holds more than tensors and plain values, so it is not loaded") from None
    except PermissionError:
        raise RunError(f"{path} cannot be read; give permission or choose another results_dir") from None
    except Exception as error:  # a damaged archive fails in many ways: zip, zlib, struct, torch
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Damaged(f"{path} is damaged, or not written by torch.save ({reason})") from None
