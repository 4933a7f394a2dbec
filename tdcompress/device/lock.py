"""Files that one process owns at a time; when it ends, however it does, nobody owns them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Whoever looks at a lock holds it for an instant, so one refusal is not yet an owner.
_PATIENCE, _PAUSE = 0.4, 0.1  # seconds that an owner-to-be tries for, and between two attempts
_LOOKS, _BLINK = 3, 0.003  # a reader's attempts, and seconds between two


@contextmanager
def owned(path: Path) -> Iterator[bool]:
    """Own ``path``, made if need be, until the block ends; the block is told whether it does, or another process.

    A process forked inside the block owns nothing. Raises ``OSError`` where the file cannot be made or locked.
    """
    lock = _lock(path)
    try:
        lock.acquire(_PATIENCE, _PAUSE)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_owned(path: Path) -> bool | None:
    """Whether a process owns ``path`` now; None if that cannot be found out, as where one may not write."""
    for look in range(_LOOKS):
        time.sleep(_BLINK * (look > 0))
        try:
            if not path.is_file():
                return False
            with _lock(path).acquire(blocking=False):
                return False
        except Timeout:
            continue
        except OSError:
            return None
    return True


def _lock(path: Path) -> FileLock:
    # Where the system has no locks: a mark that merely lies there would outlive a process that is killed.
    return FileLock(path, fallback_to_soft=False)
