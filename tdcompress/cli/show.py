"""``tdc show``: what each layer of a network holds and costs, without training it.

tdc show method=ht arch=vgg16 dataset=cifar10        # cores, ranks, parameters, MACs and plan of each layer
tdc show method=ht arch=lenet5 rank=10x              # at a budget
"""

from __future__ import annotations

from collections.abc import Sequence

from ..compression.survey.report import report
from ..device.machine import choose_device
from ..results.identity import resolved
from ..train.full_rank.start import length
from ..train.network import initial
from .shared.jobs import asked, config
from .shared.tables import print_report


def run(words: Sequence[str]) -> None:
    """Print the layers and the totals of every network that ``words`` ask for. Raises ``ConfigError`` at a bad one."""
    for one in asked(words, config):
        chosen = one.get()
        model, _ = initial(chosen, choose_device(chosen.device))
        print_report(report(model), chosen.rank)
        if resolved(chosen).full_rank_epochs != 0:
            print(f"{length(resolved(chosen))}, then as above")
