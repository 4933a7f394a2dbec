"""Networks over their seeds, and whether two of them differ by more than their seeds do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

import pandas
from scipy.special import stdtr

from ...tensor.formats import BASELINE
from ..rows import natural

LEVEL = 0.05
"""How often a difference that is called larger than the seeds' spread is none."""


@dataclass(frozen=True, eq=False)
class Network:
    """The runs of one method, rank and learning rate, of runs that agree in all else but the seed.

    ``done``: its finished runs, at least one, with the columns of ``rows.COLUMNS``; ``lost``: how many others there
    are, by status.
    """

    method: str
    variant: str
    rank: str
    lr: float
    done: pandas.DataFrame
    lost: dict[str, int]

    @property
    def label(self) -> str:
        """The method, its rank and its other choices."""
        return " ".join(filter(None, (self.method, self.rank, self.variant)))

    @property
    def baseline(self) -> bool:
        """Whether it is a network that others are compared with."""
        return self.method == BASELINE

    @property
    def accuracies(self) -> list[float]:
        """On the test set after the last epoch, of each seed (fractions)."""
        return [float(accuracy) for accuracy in self.done["test_accuracy"]]

    @property
    def mean(self) -> float:
        """Of the accuracies (a fraction)."""
        return fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """The sample's standard deviation of the accuracies, nan of a single seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else math.nan


def networks(runs: pandas.DataFrame) -> list[Network]:
    """The networks of ``runs`` that can be compared, with a finished run each: baselines first, then by name, rank."""
    groups = runs.groupby(["method", "variant", "rank", "lr"], dropna=False)
    found = []
    for (method, variant, rank, lr), part in groups:
        finished = (part["status"] == "finished") & part["test_accuracy"].notna()
        lost = part.loc[~finished, "status"].value_counts()
        if finished.any():
            counts = {str(status): int(count) for status, count in lost.items()}
            found.append(Network(method, variant, rank, lr, part[finished], counts))
    return sorted(found, key=lambda one: (not one.baseline, one.method, one.variant, natural(one.rank), one.lr))


@dataclass(frozen=True)
class Difference:
    """Of the means of two samples of accuracies.

    ``points``: percentage points, positive where the first is better. ``beyond``: whether it is larger than the seeds'
    spread explains, see ``beyond``; None if one of the two has a single seed.
    """

    points: float
    beyond: bool | None

    @property
    def verdict(self) -> str:
        """What the seeds say of it."""
        told = {None: "one seed", True: "more than the seeds' spread", False: "not told apart by the seeds"}
        return told[self.beyond]


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """By how much the accuracies (fractions) ``first`` are above ``second``."""
    points = round(100 * (fmean(first) - fmean(second)), 6)  # so that .955 is .5 points less than .96
    return Difference(points, beyond(first, second))


def beyond(first: Sequence[float], second: Sequence[float]) -> bool | None:
    """Whether the means of two samples differ by more than their spread explains; None if one has a single value.

    Welch's unequal variances t-test (Biometrika 34, 1947), two-sided, at ``LEVEL``: of a few seeds only differences
    that are several times their standard deviation are.
    """
    if min(len(first), len(second)) < 2:
        return None
    errors = [variance(sample) / len(sample) for sample in (first, second)]
    gap = abs(fmean(first) - fmean(second))
    if sum(errors) == 0:
        return gap > 0
    freedom = sum(errors) ** 2 / sum(
        e**2 / (len(sample) - 1) for e, sample in zip(errors, (first, second), strict=True)
    )
    return bool(2 * stdtr(freedom, -gap / math.sqrt(sum(errors))) < LEVEL)
