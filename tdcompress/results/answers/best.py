"""Which network is the smallest that is good enough, and which is the best that is small enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas

from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from ..rows import AGREE
from .networks import Difference, Network, difference


@dataclass(frozen=True)
class Measure:
    """A size by which networks are chosen, smaller is better.

    ``column``: where a table of runs has it; ``unit``: what its values are.
    """

    column: str
    unit: str

    @property
    def alike(self) -> tuple[str, ...]:
        """The columns in which runs agree whose values can be compared."""
        return AGREE.get(self.column, ())


MEASURES = {
    "parameters": Measure("parameters", "parameters"),
    "macs": Measure("macs", "MACs per image"),
    "bytes": Measure("exported_bytes", "bytes"),
    "ms": Measure("exported_ms", "ms for one image"),
    "seconds": Measure("train_seconds_per_epoch", "training seconds per epoch, final network"),
}


EQUAL = 1.02
"""How many times larger counts as equal: ranks are whole numbers, so methods meet one budget a little differently."""


@dataclass(frozen=True)
class Sized:
    """A network with its size: the largest of its runs'."""

    network: Network
    size: float


@dataclass(frozen=True)
class Rival(Sized):
    """A network that was not chosen. ``missed``: by how much of accuracy; None if it is too large."""

    missed: Difference | None


@dataclass(frozen=True)
class Answer:
    """What is chosen among networks whose sizes can be compared.

    ``alike``: what they agree in, such as the kind of exported file and the device that timed it. ``best``: the network
    chosen, None if none will do. ``rivals``: those that might have been chosen, the nearest first. ``baseline``: the
    most accurate of the networks that others are compared with, None without one, with a size of nan where it has none
    of that kind. ``unknown``: how many networks have no such size.
    """

    alike: tuple[str, ...]
    best: Sized | None
    rivals: tuple[Rival, ...]
    baseline: Sized | None
    unknown: int


def smallest_within(networks: Sequence[Network], measure: Measure, points: float) -> Iterator[Answer]:
    """The smallest network whose mean accuracy is at most ``points`` percentage points less than the baseline's.

    Of those at most ``EQUAL`` times as large it is the most accurate one. Its rivals are the others of these, then
    smaller ones that are not accurate enough. An answer for each of the groups in which ``measure`` can be compared.
    Raises ``ConfigError`` without a baseline.
    """
    baseline = _baseline(networks)
    if baseline is None:
        raise ConfigError(
            f"no finished run of method={BASELINE} to compare with; tdc train method={BASELINE} makes one"
        )
    enough = [accuracy - points / 100 for accuracy in baseline.accuracies]
    for alike, sized, unknown in _groups([one for one in networks if not one.baseline], measure):
        good = [one for one in sized if difference(enough, one.network.accuracies).points <= 0]
        limit = EQUAL * min((one.size for one in good), default=math.inf)
        level = [one for one in good if one.size <= limit]
        small = [one for one in sized if one not in good and one.size <= limit]
        others = _rivals(level[0].network.accuracies, level[1:]) if level else ()
        rivals = (*others, *_rivals(enough, small))
        yield Answer(alike, level[0] if level else None, rivals, _sized(baseline, measure, alike), unknown)


def best_under(networks: Sequence[Network], measure: Measure, limit: float) -> Iterator[Answer]:
    """The most accurate network whose size by ``measure`` is at most ``limit``, baselines among them.

    Its rivals are the others of such a size, or, where there is none, the larger ones, the smallest first. An answer
    for each of the groups in which ``measure`` can be compared.
    """
    baseline = _baseline(networks)
    for alike, sized, unknown in _groups(networks, measure):
        small = [one for one in sized if one.size <= limit]
        if small:
            rivals = _rivals(small[0].network.accuracies, small[1:])
        else:
            rivals = tuple(Rival(one.network, one.size, None) for one in sorted(sized, key=lambda one: one.size))
        against = None if baseline is None else _sized(baseline, measure, alike)
        yield Answer(alike, small[0] if small else None, rivals, against, unknown)


def _rivals(target: Sequence[float], others: Sequence[Sized]) -> tuple[Rival, ...]:
    """The others, with their distance from these accuracies."""
    return tuple(Rival(one.network, one.size, difference(target, one.network.accuracies)) for one in others)


def _baseline(networks: Sequence[Network]) -> Network | None:
    """The most accurate of the networks that others are compared with."""
    return max((one for one in networks if one.baseline), key=lambda one: one.mean, default=None)


def _sized(network: Network, measure: Measure, alike: tuple[str, ...]) -> Sized:
    """The network with its size in one of these groups, nan where it has none."""
    return Sized(network, _sizes(network, measure).get(alike, math.nan))


def _sizes(network: Network, measure: Measure) -> dict[tuple[str, ...], float]:
    """The largest size of its runs, for each of the groups in which ``measure`` can be compared."""
    known = network.done[network.done[measure.column].notna()]
    parts: list[tuple[tuple[str, ...], pandas.DataFrame]] = [((), known)]
    if measure.alike:
        parts = [(tuple(map(str, key)), part) for key, part in known.groupby(list(measure.alike))]
    return {alike: float(part[measure.column].max()) for alike, part in parts if not part.empty}


def _groups(networks: Sequence[Network], measure: Measure) -> Iterator[tuple[tuple[str, ...], list[Sized], int]]:
    """What the networks of a group agree in, these with their sizes, the most accurate first; how many have none."""
    found: dict[tuple[str, ...], list[Sized]] = {}
    for network in networks:
        for alike, size in _sizes(network, measure).items():
            found.setdefault(alike, []).append(Sized(network, size))
    for alike, sized in sorted(found.items()):
        sized.sort(key=lambda one: (-one.network.mean, one.size))
        yield alike, sized, len(networks) - len(sized)
