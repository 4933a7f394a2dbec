"""``tdc bench``: what layers, a training step, inference, fits and an epoch cost, against what they replace."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from ..tensor.errors import ConfigError

BENCHMARKS = {
    "layers": "single layers against their dense twins and against a hand-written chain of convolutions",
    "step": "a network's training step, every format against dense",
    "infer": "a network's forward pass, every format and what it is folded to against dense",
    "export": "a network's exported files, with cores and folded, against the dense network's",
    "fit": "decompositions of single weights against tensorly's",
    "loop": "an epoch of this package's loop against an ordinary PyTorch loop",
}


def run(words: Sequence[str]) -> None:
    """``tdc bench NAME key=value ..``: measure, print a table, write ``<results_dir>/bench/NAME.csv``.

    Raises ``ConfigError`` for an unknown benchmark or key and for a value that cannot be used.
    """
    if not words or words[0] not in BENCHMARKS:
        asked = f"unknown benchmark '{words[0]}'" if words else "tdc bench needs a benchmark"
        known = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
        raise ConfigError(f"{asked}, known: {', '.join(BENCHMARKS)} ({known})")
    importlib.import_module(f"...bench.{words[0]}", __name__).run(words[1:])
