"""Which network is the smallest that is good enough, and which is the best that is small enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas

from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from .networks import Network, beyond, difference


@dataclass(frozen=True)
class Measure:
    """A size by which networks are chosen, smaller is better.

    ``column``: where a table of runs has it; ``unit``: what its values are; ``alike``: the columns in which runs agree
    whose values can be compared.
    """

    column: str
    unit: str
    alike: tuple[str, ...] = ()


MEASURES = {
    "parameters": Measure("parameters", "parameters"),
    "macs": Measure("macs", "MACs per image"),
    "bytes": Measure("exported_bytes", "bytes", ("exported",)),
    "ms": Measure("exported_ms", "ms for one image", ("exported", "exported_on")),
    "seconds": Measure("train_seconds_per_epoch", "training seconds per epoch", ("device",)),
}


@dataclass(frozen=True)
class Sized:
    """A network with its size: the largest of its runs'."""

    network: Network
    size: float


@dataclass(frozen=True)
class Answer:
    """What is chosen among networks whose sizes can be compared.

    ``alike``: what they agree in, such as the kind of exported file and the device that timed it. ``best``: the network
    chosen, None if none will do; ``nearest`` is then the one that lacks least. ``baseline``: the most accurate of the
    networks that others are compared with, None without one. ``close``: the networks before which ``best`` was chosen
    by no more than the seeds' spread, or by single seeds, the most accurate first. ``unknown``: how many networks have
    no such size.
    """

    alike: tuple[str, ...]
    best: Sized | None
    nearest: Sized | None
    baseline: Network | None
    close: tuple[Sized, ...]
    unknown: int


def smallest_within(networks: Sequence[Network], measure: Measure, points: float) -> Iterator[Answer]:
    """The smallest network whose mean accuracy is at most ``points`` percentage points less than the baseline's.

    An answer for each of the groups in which ``measure`` can be compared. ``close`` to it are smaller networks that
    miss this by no more than the seeds' spread. Raises ``ConfigError`` without a baseline.
    """
    baseline = _baseline(networks)
    if baseline is None:
        raise ConfigError(
            f"no finished run of method={BASELINE} to compare with; tdc train method={BASELINE} makes one"
        )
    enough = [accuracy - points / 100 for accuracy in baseline.accuracies]
    for alike, sized, unknown in _groups([one for one in networks if not one.baseline], measure):
        good = [one for one in sized if round(-difference(one.network, baseline).points, 6) <= points]
        best = min(good, key=lambda one: (one.size, -one.network.mean), default=None)
        missed = sorted((one for one in sized if one not in good), key=_least_accurate, reverse=True)
        smaller = [one for one in missed if best is None or one.size < best.size]
        close = tuple(one for one in smaller if not beyond(one.network.accuracies, enough))
        yield Answer(alike, best, None if best else missed[0], baseline, close, unknown)


def best_under(networks: Sequence[Network], measure: Measure, limit: float) -> Iterator[Answer]:
    """The most accurate network whose size by ``measure`` is at most ``limit``, baselines among them.

    An answer for each of the groups in which ``measure`` can be compared. ``close`` to it are others of such a size
    that the seeds do not tell from it.
    """
    for alike, sized, unknown in _groups(networks, measure):
        small = sorted((one for one in sized if one.size <= limit), key=_least_accurate, reverse=True)
        best = small[0] if small else None
        close = tuple(one for one in small[1:] if not difference(small[0].network, one.network).beyond)
        nearest = None if best else min(sized, key=lambda one: (one.size, -one.network.mean))
        yield Answer(alike, best, nearest, _baseline(networks), close, unknown)


def _least_accurate(one: Sized) -> tuple[float, float]:
    """A key that sorts by accuracy, of equals the larger first."""
    return one.network.mean, -one.size


def _baseline(networks: Sequence[Network]) -> Network | None:
    """The most accurate of the networks that others are compared with."""
    return max((one for one in networks if one.baseline), key=lambda one: one.mean, default=None)


def _groups(networks: Sequence[Network], measure: Measure) -> Iterator[tuple[tuple[str, ...], list[Sized], int]]:
    """What the networks of a group agree in, these with their sizes, and how many of all have none there."""
    found: dict[tuple[str, ...], list[Sized]] = {}
    for network in networks:
        known = network.done[network.done[measure.column].notna()]
        parts: list[tuple[tuple[str, ...], pandas.DataFrame]] = [((), known)]
        if measure.alike:
            parts = [(tuple(map(str, key)), part) for key, part in known.groupby(list(measure.alike))]
        for alike, part in parts:
            if not part.empty:
                found.setdefault(alike, []).append(Sized(network, float(part[measure.column].max())))
    for alike, sized in sorted(found.items()):
        yield alike, sized, len(networks) - len(sized)
