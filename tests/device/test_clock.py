"""The clock on a time that the test makes up."""

from __future__ import annotations

import gc

import pytest
import torch

from tdcompress.device import clock

CPU = torch.device("cpu")


class Time:
    """A clock that only moves when something is done."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float):
        """A call that takes these seconds, one after the other, and the last of them ever after."""
        left = list(seconds)

        def call() -> None:
            self.calls += 1
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_seconds_of_one_call(monkeypatch):
    time = Time()
    monkeypatch.setattr(clock.time, "perf_counter", time)
    call = time.takes(3.0, 0.5)
    assert [clock.seconds(call, CPU), clock.seconds(call, CPU)] == [3.0, 0.5]
    assert time.calls == 2


def test_pairs_leave_the_first_calls_out():
    time = Time()
    found = clock.compare(time.takes(100.0, 2.0), {"other": time.takes(50.0, 8.0)}, 5, time)
    assert found["other"].ours == [2.0] * 5 and found["other"].rival == [8.0] * 5
    assert found["other"].ratio == 0.25 and set(found["other"].speedups) == {4.0}
    assert (found["other"].ours_ms, found["other"].rival_ms) == (2000.0, 8000.0)


def test_short_calls_are_made_several_times_over():
    time = Time()
    found = clock.compare(time.takes(0.001), {"other": time.takes(0.01)}, 3, time)
    assert found["other"].ours == pytest.approx([0.001] * 3)
    assert time.calls == (2 + 3 * 5) + (2 + 3)  # two for warming up; 5 ms of the short one, one of the long one


def test_collection_is_back_on_afterwards():
    def fails() -> None:
        if not gc.isenabled():
            raise RuntimeError("while it is off")

    with pytest.raises(RuntimeError, match="while it is off"):
        clock.compare(fails, {"other": fails}, 1)
    assert gc.isenabled()
