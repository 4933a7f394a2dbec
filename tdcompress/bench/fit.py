"""``tdc bench fit``: decompositions of single weights against tensorly's at the same ranks: error, time, memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..compression.spec import FITS, build_graph
from ..config.schema import MethodConfig
from ..config.words import choice, from_zero, read
from ..device.clock import compare
from ..results.terminal import show
from ..tensor.build import with_rank
from ..tensor.errors import ConfigError
from ..tensor.fitting.decompose import decompose, relative_error
from ..tensor.formats import FORMATS, find_format
from ..tensor.graph import Graph
from ..tensor.layout import LAYOUTS
from ..tensor.rank import Budget, parse
from ..train.watch import bar
from .machine import columns, start
from .memory import alone, peak
from .options import Options
from .table import spread, write

OURS, THEIRS = FITS
ROUNDING = 1e-6
"""Relative errors below this are those of single precision: a fit that has no more is exact."""

_COLUMNS = (
    *("weight", "method", "rank", "parameters", "error", "tensorly_error", "error_ratio"),
    *("seconds", "tensorly_seconds", "speedup", "memory_mb", "tensorly_memory_mb", "memory_ratio"),
)


@dataclass(frozen=True)
class FitOptions(Options):
    """``weight``: shapes, ``(out, in, ..)``; ``decay``: how fast they fall off along each mode, see ``falling``.

    Fits are made on the CPU, in single precision.
    """

    weight: tuple[str, ...] = ("64x64x3x3", "128x256x3x3", "512x512")
    rank: tuple[str, ...] = ("8", "16")
    layout: str | None = choice(None, LAYOUTS)
    decay: float = from_zero(0.7)
    repeats: int = 3
    precision: str = choice("fp32", ["fp32"])
    device: str = choice("cpu", ["cpu"])


@dataclass(frozen=True)
class Fit:
    """A weight, and the format, layout and rank in which cores are fitted to it."""

    shape: tuple[int, ...]
    method: str
    rank: str
    layout: str | None = None
    decay: float = 0.7
    seed: int = 0

    @property
    def graph(self) -> Graph:
        """The graph at its rank."""
        format, rank = find_format(self.method), parse(self.rank)
        if isinstance(rank, Budget) or rank.needs_weights:
            raise ConfigError(f"rank={self.rank} is not of a single weight: use a size such as 8")
        graph = build_graph(self.shape, format, MethodConfig(format=self.method, layout=self.layout))
        return with_rank(graph, format, rank, self.shape)

    def weight(self) -> Tensor:
        """The weight, in single precision."""
        return falling(self.shape, self.decay, self.seed).float()

    def fitted(self, whose: str, weight: Tensor) -> list[Tensor]:
        """The cores by the algorithm of that name in ``FITS``."""
        return decompose(self.graph, weight, seed=self.seed, algorithm=FITS[whose](find_format(self.method)))

    def errors(self) -> tuple[float, float]:
        """The relative error of ours, and of tensorly's."""
        weight = self.weight()
        ours, theirs = (relative_error(self.graph, self.fitted(whose, weight), weight) for whose in (OURS, THEIRS))
        return ours, theirs

    def memory(self, whose: str) -> float:
        """MB that this fit needs at most, in a process of its own."""
        return alone(__name__, {"fit": asdict(self), "whose": whose, "threads": torch.get_num_threads()})


def falling(shape: Sequence[int], decay: float, seed: int = 0) -> Tensor:
    """A random weight in double precision: in a random basis of each mode its k-th slice falls off as k^-decay.

    Trained weights fall off so, too; with ``decay=0`` all entries are independent, and no fit keeps much of them.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=generator, dtype=torch.float64)
    for axis, size in enumerate(shape):
        basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
        scales = torch.arange(1, size + 1, dtype=torch.float64).pow(-decay)
        weight = torch.tensordot(basis * scales, weight, ([1], [axis])).movedim(0, axis)
    return weight


def run(words: Sequence[str]) -> None:
    """Fit every weight in every format and rank asked for, both ways; a row each."""
    options = read(words, FitOptions)
    known = [name for name, format in sorted(FORMATS.items()) if format.tensorly is not None]
    cases = [
        Fit(shape, method, rank, options.layout, options.decay)
        for shape in map(_shape, options.weight)
        for method in options.method or known
        for rank in options.rank
    ]
    for case in cases:
        FITS[THEIRS](find_format(case.method))
        _ = case.graph
    options, device = start(options)
    rows: list[dict[str, Any]] = []
    for case in bar(cases, "fit", 0, len(cases)):
        rows.append({**measure(case, options.repeats), **columns(options, device)})
        path = write(rows, options.results_dir, "fit")
    show(rows, _COLUMNS, "ratios: ours / tensorly's; speedup: tensorly's / ours, in pairs")
    print(path)


def measure(case: Fit, repeats: int) -> dict[str, Any]:
    """One weight in one format: errors, seconds, and peak memory."""
    weight, graph = case.weight(), case.graph
    error, tensorly_error = case.errors()
    ours, theirs = (partial(case.fitted, whose, weight) for whose in (OURS, THEIRS))
    times = compare(ours, {THEIRS: theirs}, repeats)[THEIRS]
    memory, tensorly_memory = (case.memory(whose) for whose in (OURS, THEIRS))
    return {
        "weight": "x".join(map(str, case.shape)),
        "decay": case.decay,
        "layout": case.layout or find_format(case.method).usual(case.shape),
        "method": case.method,
        "rank": case.rank,
        "ranks": " ".join(f"{bond}={size}" for bond, size in graph.ranks.items()),
        "parameters": graph.parameters,
        "dense_parameters": graph.dense_parameters,
        "error": error,
        "tensorly_error": tensorly_error,
        "error_ratio": max(error, ROUNDING) / max(tensorly_error, ROUNDING),
        "seconds": times.ours_ms / 1000,
        "tensorly_seconds": times.rival_ms / 1000,
        **spread("speedup", times.speedups),
        "memory_mb": memory,
        "tensorly_memory_mb": tensorly_memory,
        "memory_ratio": memory / tensorly_memory if tensorly_memory else None,
    }


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if not 2 <= len(sizes) <= 5 or not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError(f"weight={text} is no shape such as 512x512 or 64x32x3x3")
    return tuple(map(int, sizes))


def main(text: str) -> None:
    """Print the MB of the fit that ``text`` (JSON) describes."""
    asked = json.loads(text)
    torch.set_num_threads(asked["threads"])
    case = Fit(**asked["fit"])
    small = Fit(tuple(min(size, 4) for size in case.shape), case.method, "1", case.layout)
    small.fitted(asked["whose"], small.weight())  # what a first call loads is no part of it
    print(peak(partial(case.fitted, asked["whose"], case.weight()), torch.device("cpu")))


if __name__ == "__main__":
    main(sys.argv[1])
