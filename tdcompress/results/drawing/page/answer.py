"""What the page opens with: which network is best at each budget, and whether by more than the seeds spread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ....tensor.formats import BASELINE
from ...answers.best import MEASURES, smallest_within
from ...answers.networks import Difference, Network, difference, networks
from ...identity import is_budget
from ...rows import natural
from ..comparison import Comparison, at_one_rate
from ..words import rank as rank_said
from ..words import said

WITHIN = 0.5  # percentage points


@dataclass(frozen=True)
class Answer:
    """A row of the opening table, in words."""

    asked: str
    best: str
    accuracy: str
    against_baseline: str
    next: str
    ahead: str


def answers(comparison: Comparison) -> Iterator[Answer]:
    """The smallest network that is about as accurate as the baseline, and the most accurate one at each budget.

    Of the runs at one learning rate, which is said where there are others; a budget with a single network answers
    nothing.
    """
    found = networks(at_one_rate(comparison.runs))
    rate = f", learning rate {found[0].lr:g}" if found and comparison.runs["lr"].nunique() > 1 else ""
    dense = max((one for one in found if one.baseline), key=lambda one: one.mean, default=None)
    if dense is not None:
        for answer in smallest_within(found, MEASURES["parameters"], WITHIN):
            if answer.best is not None:
                asked = f"fewest parameters within {WITHIN:g} points of {BASELINE}{rate}"
                best = answer.best.network
                yield _answer(asked, f"{_name(best)} {rank_said(best.rank)}", best, None, dense)
    for rank in sorted({one.rank for one in found if is_budget(one.rank)}, key=natural):
        first, *others = sorted((one for one in found if one.rank == rank), key=lambda one: -one.mean)
        if others:
            yield _answer(rank_said(rank) + rate, _name(first), first, others[0], dense)


def _answer(asked: str, name: str, best: Network, rival: Network | None, dense: Network | None) -> Answer:
    gap = "" if dense is None else _told(difference(best.accuracies, dense.accuracies))
    ahead = "" if rival is None else _told(difference(best.accuracies, rival.accuracies))
    return Answer(asked, name, _accuracy(best), gap, "" if rival is None else _name(rival), ahead)


def _name(network: Network) -> str:
    return " ".join(filter(None, (network.method, said(network.variant))))


def _accuracy(network: Network) -> str:
    spread = "" if math.isnan(network.deviation) else f" ± {100 * network.deviation:.2f}"
    return f"{100 * network.mean:.2f}{spread} ({len(network.accuracies)})"


def _told(gap: Difference) -> str:
    return f"{gap.points:+.2f} points, {gap.verdict}"
