"""Calls timed in pairs, on a clock that only they move."""

from __future__ import annotations

import gc
from itertools import count

from tdcompress.device.clock import compare


class Clock:
    """A clock that only calls move on, each by the next of its durations; the last one lasts."""

    def __init__(self) -> None:
        self.now, self.made = 0.0, []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *durations: float):
        number = count()

        def made() -> None:
            self.made.append((name, gc.isenabled()))
            self.now += durations[min(next(number), len(durations) - 1)]

        return made


def test_ratios_are_taken_pair_by_pair():
    clock = Clock()
    ours, rival = clock.call("ours", 7, 7, 1, 10, 3), clock.call("rival", 9, 9, 2, 5, 30)
    pairs = compare(ours, {"rival": rival}, 3, clock)["rival"]
    assert (pairs.ours, pairs.rival) == ([1, 10, 3], [2, 5, 30])
    assert (pairs.ours_ms, pairs.rival_ms) == (3000, 5000)
    assert pairs.ratio == 0.5  # of the medians it was 0.6
    assert (pairs.ratios, pairs.speedups) == ([0.5, 2, 0.1], [2, 0.5, 10])
    timed = clock.made[4:]
    assert [name for name, _ in timed] == ["ours", "rival", "rival", "ours", "ours", "rival"]
    assert not any(enabled for _, enabled in timed) and gc.isenabled()


def test_every_rival_gets_a_pair_of_its_own():
    clock = Clock()
    pairs = compare(clock.call("a", 1), {"b": clock.call("b", 2), "c": clock.call("c", 4)}, 2, clock)
    assert [name for name, _ in clock.made[6:]] == list("abacbaca")
    assert pairs["b"].ratio == 0.5 and pairs["c"].ratio == 0.25


def test_short_calls_are_made_many_times_over():
    clock = Clock()
    pairs = compare(clock.call("short", 1 / 1024), {"long": clock.call("long", 1)}, 1, clock)
    assert [name for name, _ in clock.made[4:]] == ["short"] * 6 + ["long"]
    assert pairs["long"].ours == [1 / 1024] and pairs["long"].rival == [1]
