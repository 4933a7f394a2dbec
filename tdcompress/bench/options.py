"""What every benchmark takes."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.schema import DEVICES, PRECISIONS
from ..config.words import choice


@dataclass(frozen=True)
class Options:
    """The ``key=value`` words of every benchmark.

    ``method``: the formats, all of them unless said; ``repeats``: rounds, of which medians are told; ``threads``: of
    torch on a CPU, as many as it chooses unless said; ``results_dir``: the folder above bench/.
    """

    method: tuple[str, ...] = ()
    repeats: int = 11
    threads: int | None = None
    precision: str = choice("auto", PRECISIONS)
    device: str = choice("auto", DEVICES)
    results_dir: str = "results"
