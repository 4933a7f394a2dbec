"""``tdc bench``: what layers, a training step, inference, fits and an epoch cost, against what they replace.

tdc bench layers method=cp threads=2             # forward and backward of single layers
tdc bench layers rank=8,half repeats=5           # at two ranks, fewer rounds
tdc bench step parameters=tucker:reference       # every format at Tucker's size
tdc bench step arch=lenet dataset=mnist          # another network
tdc bench infer method=tt rank=10x               # as trained and folded
tdc bench infer run=RUN                          # a network that was trained, at the ranks it ended with
tdc bench export method=tt width=0.25            # a network of a quarter's width
tdc bench export layout=channels batch_size=1    # one layout, one image
tdc bench fit weight=64x64x3x3 method=cp,tr      # one weight in two formats
tdc bench fit rank=16 decay=1.5                  # of weights that fall off faster
tdc bench loop dataset=mnist precision=fp32      # an epoch of MNIST
tdc bench loop method=tt limit=1000              # of a network of cores
"""

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
