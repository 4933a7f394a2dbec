"""``tdc bench``: what the layers, a training step and an epoch cost, against what they replace, in one run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from ..tensor.errors import ConfigError

VERBS = {
    "layers": "single layers against their dense twins and against a hand-written chain of convolutions",
    "step": "a network's training step, every format against dense",
    "infer": "a network's forward pass, every format and what it is folded to against dense",
    "loop": "an epoch of this package's loop against an ordinary PyTorch loop",
}


def run(words: Sequence[str]) -> None:
    """``tdc bench VERB key=value ..``: measure, print a table, write ``<results_dir>/bench/VERB.csv``.

    Raises ``ConfigError`` for an unknown verb or key and for a value that cannot be used.
    """
    if not words or words[0] not in VERBS:
        asked = f"unknown benchmark '{words[0]}'" if words else "tdc bench needs a benchmark"
        known = "; ".join(f"{name}: {what}" for name, what in VERBS.items())
        raise ConfigError(f"{asked}, known: {', '.join(VERBS)} ({known})")
    importlib.import_module(f".{words[0]}", __name__).run(words[1:])
