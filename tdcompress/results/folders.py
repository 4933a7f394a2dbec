"""The folders of runs: deleted, and moved among other results."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..device.files import RunError, cannot
from .run import LOCK, Run


def delete(directory: Path, results_dir: Path) -> None:
    """Delete the run in ``directory``, below ``results_dir``, and the folders above it that this leaves empty.

    A link in it is deleted, not what it leads to. Raises RunError, with nothing touched, where a process works on the
    run or a link leads to it; and where it cannot be deleted, what is left is then a broken run.
    """
    with _owned(directory, results_dir, "delete"):
        _empty(directory)
    _remove(directory, results_dir)


def move(directory: Path, results_dir: Path, to: Path) -> Path:
    """Move the run in ``directory``, below ``results_dir``, to the same place below ``to``; returns that place.

    Folders that this leaves empty are deleted. To another file system it is copied under another name first, so that
    at no time there is half a run. Raises RunError as ``delete`` does, and where there is something in its place.
    """
    target = to / directory.relative_to(results_dir)
    if os.path.lexists(target):
        raise RunError(f"{target} is there already; nothing is overwritten")
    with _owned(directory, results_dir, "move"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(directory, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            part = target.with_name(f".{target.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(directory, part, symlinks=True)
            os.rename(part, target)
            _empty(directory)
    _remove(directory, results_dir)
    return target


def bytes_of(directory: Path) -> int:
    """What the files in ``directory`` hold; of links only their own bytes."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(directory) for name in names
    )


@contextmanager
def _owned(directory: Path, results_dir: Path, verb: str) -> Iterator[None]:
    """Own the run in ``directory``. Raises RunError where another process does, or a link leads there."""
    steps = directory.relative_to(results_dir).parts
    for folder in (results_dir.joinpath(*steps[:depth]) for depth in range(1, len(steps) + 1)):
        if folder.is_symlink():
            raise RunError(f"cannot {verb} {directory}: {folder} is a link; use the folder that it leads to")
    if not directory.is_dir():
        raise RunError(f"cannot {verb} {directory}: it is no folder")
    try:
        with Run(directory).locked():
            yield
    except OSError as error:
        raise cannot(verb, directory, error) from None


def _empty(directory: Path) -> None:
    """Delete all but the lock, the summary first: what an interrupt leaves is no run that has ended."""
    for path in sorted(directory.iterdir(), key=lambda path: path.name != "summary.json"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _remove(directory: Path, results_dir: Path) -> None:
    """Delete the lock, the folder, and those between it and ``results_dir``, as far as they are empty."""
    (directory / LOCK).unlink(missing_ok=True)
    for folder in (directory, *directory.parents):
        if folder == results_dir:
            return
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return
