"""Work in threads: in order, its errors, and a signal in its midst."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tdcompress.device.threads import _AT_ONCE, in_threads


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
