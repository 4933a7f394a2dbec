"""Work in threads: in order, its errors, and a signal in its midst."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from tdcompress.device.threads import _AT_ONCE, in_threads, side_by_side


def test_in_their_order():
    assert in_threads(lambda item: item**2, range(2500)) == [item**2 for item in range(2500)]
    assert in_threads(abs, []) == []


def test_what_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 / item, [2, 1, 0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_some_are_done(number):
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            os.kill(os.getpid(), number)  # heard by the main thread, which hands out the rest meanwhile
        time.sleep(0.0005)
        done.append(item)

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_threads(work, range(700))
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert sorted(done) == list(range(_AT_ONCE))
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_small_calls_run_side_by_side_on_a_thread_each_and_large_ones_alone_on_all():
    together = threading.Barrier(2)

    def small() -> int:
        together.wait(10)  # for another
        return torch.get_num_threads()

    calls = [small, torch.get_num_threads, small, small, small]
    assert list(side_by_side(calls, [1, 5, 1, 1, 1])) == [1, 2, 1, 1, 1]


def test_one_thread_makes_one_call_after_the_other(one_thread):
    names = list(side_by_side([lambda: threading.current_thread().name] * 3, [1, 1, 1]))
    assert names == [threading.current_thread().name] * 3


@pytest.mark.usefixtures("two_threads")
def test_a_call_that_fails_ends_the_rest():
    begun: list[int] = []

    def call(place: int) -> int:
        begun.append(place)
        return 1 // (place - 1)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side([lambda place=place: call(place) for place in range(20)], [1] * 20))
    assert len(begun) < 20


@pytest.mark.usefixtures("two_threads")
def test_a_signal_waits_for_the_calls_that_run():
    ended: list[int] = []

    def call(place: int) -> None:
        if place == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        ended.append(place)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(side_by_side([lambda place=place: call(place) for place in range(50)], [1] * 50))
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(range(4)) <= set(ended) and len(ended) < 10
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]
