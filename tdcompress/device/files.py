"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..tensor.errors import ConfigError


class RunError(ConfigError):
    """A run's directory cannot be used: busy, not writable, full, or another configuration's."""


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], keep: Path | None = None) -> None:
    """Make ``path`` what ``write`` writes, in one step, safe against a crash; the file before it becomes ``keep``.

    Raises RunError if it cannot be written; what was there is then untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save hides a full disk in a RuntimeError
        with suppress(OSError):
            temporary.unlink()
        raise cannot("write", path, error) from None


def write_text(path: Path, text: str) -> None:
    """Make ``path`` this text, as ``write_whole`` does."""
    write_whole(path, lambda file: file.write(text.encode()))


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` survive a power cut; Windows knows no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot(verb: str, path: Path, error: Exception) -> RunError:
    """The error to raise where to ``verb`` ``path`` raised ``error``: one line, with the reason and what helps."""
    reason = getattr(error, "strerror", None) or "the disk may be full"
    return RunError(f"cannot {verb} {path}: {reason}; make room or give permission, or write elsewhere")
