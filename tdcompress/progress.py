"""A bar over the steps of an epoch, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PERIOD = 0.25  # seconds between two redraws


def bar(steps: Iterable[T], title: str, done: int, total: int) -> Iterable[T]:
    """``steps`` themselves, drawn on stderr if that is a terminal; otherwise untouched, so they cost nothing more."""
    return _drawn(steps, title, done, total) if sys.stderr.isatty() else steps


def _drawn(steps: Iterable[T], title: str, done: int, total: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task(title, completed=done, total=total)
        drawn = time.perf_counter()
        for position, step in enumerate(steps, start=done):
            now = time.perf_counter()
            if now - drawn > _PERIOD:
                drawn = now
                progress.update(task, completed=position, refresh=True)
            yield step
