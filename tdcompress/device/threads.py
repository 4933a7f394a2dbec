"""Work in several threads, which a signal does not leave waiting for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch

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


def side_by_side(calls: Sequence[Callable[[], B]], sizes: Sequence[float]) -> Generator[B, None, None]:
    """What the calls give, in their order: as many at a time as torch has threads, each on one of them.

    Many small operations are no faster on several threads. A call that has more than a thread's share of all ``sizes``
    comes before the others and has all threads. Raises what a call raises.
    """
    threads, share = torch.get_num_threads(), sum(sizes) / torch.get_num_threads()
    small = [place for place, size in enumerate(sizes) if size <= share]
    if threads == 1 or len(small) < 2:
        yield from (call() for call in calls)
        return
    found = {place: call() for place, call in enumerate(calls) if sizes[place] > share}
    running: dict[Future[B], int] = {}
    todo = iter(small)
    torch.set_num_threads(1)  # of new threads, too
    try:
        with ThreadPoolExecutor(threads) as pool:
            for place in range(len(calls)):
                while place not in found:
                    with _signals_later():
                        running |= {pool.submit(calls[k]): k for k in islice(todo, threads - len(running))}
                        ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    found |= {running.pop(future): future.result() for future in ended}
                yield found.pop(place)
    finally:
        torch.set_num_threads(threads)


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
