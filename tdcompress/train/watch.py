"""What one sees of a run while it trains: a bar, a profile of its steps, TensorBoard's curves."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.profiler import ProfilerActivity, profile

from ..results.record import METRICS, Epoch, cells
from ..tensor.errors import ConfigError

T = TypeVar("T")
_PERIOD = 0.25  # seconds between two redraws


_around: ContextVar[Progress | None] = ContextVar("_around", default=None)


def bar(steps: Iterable[T], title: str, done: int, total: int) -> Iterable[T]:
    """``steps`` themselves, drawn on stderr if that is a terminal; otherwise untouched, so they cost nothing more."""
    return _drawn(steps, title, done, total) if sys.stderr.isatty() else steps


def layers(names: Sequence[str]) -> Iterable[str]:
    """The names of layers as they are decomposed, see ``compress``, drawn as a ``bar``."""
    return bar(names, "layers", 0, len(names))


def bars() -> Progress:
    """What draws every ``bar``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)


@contextmanager
def bars_in(progress: Progress) -> Iterator[None]:
    """Within the block each ``bar`` is a task of ``progress``, which somebody else draws among other things."""
    token = _around.set(progress)
    try:
        yield
    finally:
        _around.reset(token)


def _drawn(steps: Iterable[T], title: str, done: int, total: int) -> Iterator[T]:
    around = _around.get()
    with bars() if around is None else nullcontext(around) as progress:
        task = progress.add_task(title, completed=done, total=total)
        drawn = time.perf_counter()
        try:
            for position, step in enumerate(steps, start=done):
                now = time.perf_counter()
                if now - drawn > _PERIOD:
                    drawn = now
                    progress.update(task, completed=position, refresh=True)
                yield step
        finally:
            progress.remove_task(task)


_BEFORE, _PROFILED = 8, 5  # steps
_ROWS = 20


def profiled(
    steps: Iterable[T], total: int, device: torch.device, trace: Path, log: Callable[[str], Any]
) -> Iterator[T]:
    """``steps`` themselves; five of them, after eight for warming up (fewer if ``total`` is less), are profiled.

    The log gets the table of operations by the time that each spends itself, on the device that computes; ``trace``
    becomes a file for chrome://tracing or ui.perfetto.dev. What the profiler does adds to the time of the epoch.
    """
    count = min(_PROFILED, max(1, total // 2))
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    steps = iter(steps)
    yield from islice(steps, min(_BEFORE, total - count))
    with profile(activities=activities) as profiler:
        yield from islice(steps, count)
    profiler.export_chrome_trace(str(trace))
    order = "self_device_time_total" if cuda else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=40)
    log(f"profile of {count} steps, trace in {trace}\n{table}")
    yield from steps


class Scalars:
    """The columns of metrics.csv as scalars over epochs in ``directory``/tensorboard, from epoch ``first`` on.

    What an earlier process wrote there of that epoch and later ones is hidden. Raises ``ConfigError`` where the package
    is missing.
    """

    def __init__(self, directory: Path, first: int) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("tensorboard=true: the package is missing; pip install 'tdcompress[tensorboard]'")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=first)

    def add(self, epoch: Epoch) -> None:
        """Write one epoch's row, to be seen at once."""
        for column, value in zip(METRICS, cells(epoch), strict=True):
            if column != "epoch":
                self.writer.add_scalar(column, value, epoch.epoch)
        self.writer.flush()
