"""Threads that a signal does not leave waiting for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
_AT_ONCE = 256  # of them a signal waits for the end


def in_threads(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """What ``function`` makes of each of the items, in their order, several at a time. Raises what it raises first."""
    found: list[B] = []
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(items), _AT_ONCE):
            with _signals_later():
                found += pool.map(function, items[first : first + _AT_ONCE])
    return found


@contextmanager
def _signals_later() -> Iterator[None]:
    """SIGINT and SIGTERM act once this has ended.

    A handler that raises in the midst of a pool's own code leaves its locks held, and its threads wait for them.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler runs
        yield
        return
    came: list[int] = []
    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])
