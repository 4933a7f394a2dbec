"""Where the time of a training step goes: torch's profiler over a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")
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
