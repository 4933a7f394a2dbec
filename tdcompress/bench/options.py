"""What every benchmark takes."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.schema import DEVICES, PRECISIONS
from ..config.words import choice


@dataclass(frozen=True)
class Options:
    """The ``key=value`` words of every benchmark. ``threads``: of torch on a CPU, None: as many as torch chooses."""

    method: tuple[str, ...] = ()
    repeats: int = 11
    threads: int | None = None
    precision: str = choice("auto", PRECISIONS)
    device: str = choice("auto", DEVICES)
    results_dir: str = "results"
