"""Being asked to stop: SIGINT and SIGTERM as a flag that the loop reads after each step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

_PATIENCE = 1.0  # seconds: a terminal and a parent process (make, a launcher) often both pass on the same Ctrl-C


class Interrupted(KeyboardInterrupt):
    """A run stopped upon a signal, after its checkpoint. ``code`` is the exit code that is due (130, 143)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return self.message


class StopSignals:
    """``with StopSignals() as stop``: the first SIGINT or SIGTERM sets ``stop.number`` and nothing else.

    Asking again more than a second later ends the process at once. Outside the main thread, where Python allows no
    handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def interrupted(self, message: str) -> Interrupted:
        """The exception to raise once everything is on disk."""
        return Interrupted(message, 128 + (self.number or signal.SIGINT))

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is None:
            self.number, self._since = number, now
        elif now - self._since > _PATIENCE:
            raise Interrupted("stopped at once", 128 + number)
