"""Files that one process owns at a time; when it ends, however it does, nobody owns them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Whoever looks at a lock holds it for an instant, so one refusal is not yet an owner. In seconds: how long a lock is
# tried, and the pause between two attempts.
_TO_OWN, _TO_LOOK = (0.4, 0.1), (0.01, 0.002)


@contextmanager
def owned(path: Path) -> Iterator[bool]:
    """Own ``path``, made if need be, until the block ends; the block is told whether it does, or another process.

    A process forked inside the block owns nothing. Raises ``OSError`` where the file cannot be made or locked.
    """
    lock = _lock(path)
    try:
        lock.acquire(_TO_OWN[0], _TO_OWN[1])
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_owned(path: Path) -> bool | None:
    """Whether a process owns ``path`` now; None if that cannot be found out, as where one may not write."""
    try:
        if not path.is_file():
            return False
        lock = _lock(path)
        lock.acquire(_TO_LOOK[0], _TO_LOOK[1])
    except Timeout:
        return True
    except OSError:
        return None
    lock.release()
    return False


def _lock(path: Path) -> FileLock:
    # Where the system has no locks: a mark that merely lies there would outlive a process that is killed.
    return FileLock(path, fallback_to_soft=False)
