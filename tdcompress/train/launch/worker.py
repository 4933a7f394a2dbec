"""The process of one run: reads a pickled ``Job``, writes lines, exits as ``tdc`` does."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading

from ...tensor.errors import ConfigError
from .job import SIGNALS, Job


def main() -> None:
    """Exit with 0 when the run has ended, 1 or 2 if it cannot be, 130 or 143 upon a signal; the last line says why."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the launcher started this process with both held back
        job = pickle.load(sys.stdin.buffer)
        assert isinstance(job, Job)
        threading.Thread(target=_end_with_the_launcher, daemon=True).start()
        job.run(_say)
    except (ConfigError, RuntimeError) as error:
        _say("tdc: " + " ".join(str(error).split()))
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt as stop:
        _say(str(stop) or "interrupted before its first step")
        sys.exit(getattr(stop, "code", 130))


def _end_with_the_launcher() -> None:
    """Its end of the pipe closes when it is killed; a run that went on would be in the way of the same sweep."""
    os.read(sys.stdin.fileno(), 1)  # nothing more is ever written there
    os._exit(1)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
