"""The process of one run of ``launcher=local``: reads a pickled ``Job`` from stdin, writes lines to stdout."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading

from ...tensor.errors import ConfigError
from .basic import carried_out
from .job import BREAK, SIGNALS, Job


def main() -> None:
    """Make the run and exit with ``tdc``'s codes; where that is not 0, the last line says why.

    0: the run has ended; 1: it failed; 2: its configuration cannot be used; 130 or 143: SIGINT or SIGTERM, after the
    step and its checkpoint.
    """
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the launcher started this process with both held back
        job = pickle.load(sys.stdin.buffer)
        assert isinstance(job, Job)
        threading.Thread(target=_end_with_the_launcher, daemon=True).start()
        carried_out(job, _say)
    except (ConfigError, RuntimeError) as error:
        _say("tdc: " + " ".join(str(error).split()))
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt as stop:
        _say(str(stop) or "interrupted before its first step")
        sys.exit(getattr(stop, "code", 130))


def _end_with_the_launcher() -> None:
    """Kill this process once the launcher's end of stdin closes, which it does however the launcher ends.

    A run that went on would hold its directory when the same sweep is started again.
    """
    os.read(sys.stdin.fileno(), 1)  # nothing more is ever written there
    os._exit(1)


def _say(message: str) -> None:
    print(message.replace("\n", BREAK), flush=True)


if __name__ == "__main__":
    main()
