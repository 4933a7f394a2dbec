"""How long calls take: one by one, or in pairs, so that what disturbs a machine disturbs both sides of a ratio."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

Call = Callable[[], object]
Timer = Callable[[], float]
_LEAST = 0.005  # seconds that one measurement lasts: shorter calls are made several times over


@dataclass
class Pairs:
    """Seconds a call of ours and of one rival, measured one right after the other, round by round."""

    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Of each round ours / rival: below one, ours is faster."""
        return [a / b for a, b in zip(self.ours, self.rival, strict=True)]

    @property
    def speedups(self) -> list[float]:
        """Of each round rival / ours: above one, ours is faster."""
        return [b / a for a, b in zip(self.ours, self.rival, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of ``ratios``."""
        return statistics.median(self.ratios)

    @property
    def ours_ms(self) -> float:
        """Median milliseconds of ours."""
        return 1000 * statistics.median(self.ours)

    @property
    def rival_ms(self) -> float:
        """Median milliseconds of the rival."""
        return 1000 * statistics.median(self.rival)

    @property
    def spreads_ms(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The quartiles around the medians, in milliseconds: of ours, and of the rival."""
        ours, rival = (quartiles([1000 * one for one in times]) for times in (self.ours, self.rival))
        return ours, rival


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Between which the middle half of the values lies; of a single one it twice."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return low, high


def compare(ours: Call, rivals: Mapping[str, Call], repeats: int, timer: Timer = time.perf_counter) -> dict[str, Pairs]:
    """Time ``ours`` against each rival in ``repeats`` rounds.

    Every round times ours and each rival as a pair, and the next round turns the pair around, so that neither always
    runs in the other's wake. All are called beforehand: what a first call prepares is no part of the times. A call
    must return only when its work is done (see ``finished``). Garbage collection is off meanwhile.
    """
    calls = {"": ours, **rivals}
    counts = {name: _count(call, timer) for name, call in calls.items()}
    found = {name: Pairs() for name in rivals}
    with _no_collection():
        for turn in range(repeats):
            for name, pairs in found.items():
                ours_first = turn % 2 == 0
                order = ("", name) if ours_first else (name, "")
                first, second = (_seconds(calls[which], counts[which], timer) for which in order)
                pairs.ours.append(first if ours_first else second)
                pairs.rival.append(second if ours_first else first)
    return found


def finished(call: Call, device: torch.device) -> Call:
    """``call`` as one that returns when ``device`` has done its work."""
    if device.type != "cuda":
        return call

    def waited() -> None:
        call()
        torch.cuda.synchronize(device)

    return waited


def seconds(call: Call, device: torch.device) -> float:
    """Seconds from the start of one ``call`` on an idle ``device`` until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return _seconds(finished(call, device), 1, time.perf_counter)


def _count(call: Call, timer: Timer) -> int:
    """How often to make a call for one measurement, found by warming up."""
    call()
    once = _seconds(call, 1, timer)
    return max(1, math.ceil(_LEAST / max(once, _LEAST / 1000)))


def _seconds(call: Call, count: int, timer: Timer) -> float:
    """Seconds a call, the mean of ``count`` in a row."""
    began = timer()
    for _ in range(count):
        call()
    return (timer() - began) / count


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
