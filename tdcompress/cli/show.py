"""``tdc show``: what each layer of a network holds and costs, without training it.

tdc show method=ht arch=vgg16 dataset=cifar10        # cores, ranks, parameters, MACs and plan of each layer
tdc show method=ht arch=lenet5 rank=10x              # at a budget
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..compression.survey.report import report
from ..device.machine import choose_device
from ..results.identity import resolved
from ..train.full_rank.start import cuts, length
from ..train.network import initial
from .shared.jobs import asked, config
from .shared.tables import print_report


def run(words: Sequence[str]) -> None:
    """Print the layers and the totals of every network that ``words`` ask for; seeds make no other network.

    Raises ``ConfigError`` at a bad one.
    """
    shown = []
    for one in asked(words, config):
        chosen = resolved(replace(one.get(), seed=0))
        said = repr(chosen)  # the order of method.layers counts, too
        if said in shown:
            continue
        shown.append(said)
        if one.sweep:
            if len(shown) > 1:
                print()
            print(" ".join(word for word in one.words.split() if not word.startswith("seed=")))
        if chosen.full_rank_epochs != 0 and chosen.rank.needs_weights:
            print(f"{length(chosen)}, then cores of ranks that follow from the weights, rank={chosen.rank}")
            continue
        model, _ = initial(chosen, choose_device(chosen.device))
        print_report(report(model), chosen.rank)
        if chosen.full_rank_epochs != 0:
            met, by_cuts = cuts(chosen)
            print(f"{length(chosen)}, then " + (f"cuts to these {met}{by_cuts}" if by_cuts else "as above"))
