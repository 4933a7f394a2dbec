"""Several runs of a sweep at once, each in a process of its own on this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from ...config.schema import LauncherConfig
from ...device.files import RunError
from ...results.record import Summary
from ...results.run import Run
from ...tensor.errors import ConfigError
from ..interrupt import StopSignals
from .job import BREAK, SIGNALS, Job
from .starts import awaited
from .sweep import Sweep


def local(starts: Sequence[Job], jobs: Sequence[Job], settings: LauncherConfig, sweep: Sweep) -> None:
    """``settings.jobs`` runs at once, each a ``worker`` process with its share of this machine's cores, or as many as
    ``OMP_NUM_THREADS`` says where that is set.

    A job begins when those of the ``starts`` have ended that it goes on from.

    A signal is passed on to every process, no further run begins, and ``Interrupted`` is raised when all have ended
    after their step. A second signal more than a second later kills them.
    Raises ``ConfigError`` on Windows, where no signal reaches one process alone.
    """
    if sys.platform == "win32":
        raise ConfigError("launcher=local needs the signals of Unix, which Windows lacks; use launcher=basic")
    before = {job.directory: awaited(job, starts) for job in jobs}
    first = [*starts, *(job for job in jobs if not before[job.directory])]
    later = [job for job in jobs if before[job.directory]]
    running: set[subprocess.Popen[bytes]] = set()
    futures: dict[Future[Summary | Exception | None], Job] = {}
    at_once = min(settings.jobs, len(starts) + len(jobs))
    with StopSignals() as stop, ThreadPoolExecutor(at_once, initializer=_block_signals) as pool:

        def submit(some: Sequence[Job], beside: int) -> set[Future[Summary | Exception | None]]:
            environment = _environment(min(at_once, beside))
            new = {pool.submit(_in_a_process, job, environment, running, stop, sweep): job for job in some}
            futures.update(new)
            return set(new)

        told: set[subprocess.Popen[bytes]] = set()
        waiting = submit(first, len(first))
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome, ended = future.result(), futures[future]
                    if outcome is not None:
                        sweep.end(ended, outcome)
                    for directories in before.values():
                        directories.discard(ended.directory)
                ready = [job for job in later if not before[job.directory]]
                later = [job for job in later if before[job.directory]]
                if ready:
                    waiting |= submit(ready, len(jobs))
                if stop.number is not None:
                    for process in running.copy() - told:
                        process.send_signal(stop.number)
                        told.add(process)
        finally:  # reached with processes still at work only by an exception
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running.copy():
                process.kill()
    if stop.number is not None:
        raise stop.interrupted("sweep interrupted; the same command goes on")


def _environment(at_once: int) -> dict[str, str]:
    """Of a process beside as many; a user's own model is found where this process finds it."""
    threads = {"OMP_NUM_THREADS": str(max(1, _cores() // at_once))}
    return threads | os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def _in_a_process(
    job: Job, environment: dict[str, str], running: set[subprocess.Popen[bytes]], stop: StopSignals, sweep: Sweep
) -> Summary | Exception | None:
    """Start a worker for ``job`` and wait for it, unless a signal has come.

    Returns the run's summary, the error because of which there is none, or None if it was interrupted or not begun.
    While it works the process is in ``running``.
    """
    if stop.number is not None:
        return None
    # In a session of its own, so that a terminal's Ctrl-C reaches a run once, from here.
    process = subprocess.Popen(
        [sys.executable, "-m", "tdcompress.train.launch.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    running.add(process)
    sweep.begin(job)
    last = ""
    with process:
        with suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps(job))
            process.stdin.flush()  # and left open: the worker ends when this process does
        for line in process.stdout:
            message = line.decode(errors="replace").rstrip().split(BREAK)
            last = message[-1]
            sweep.say(job, "\n".join(message))
    running.discard(process)
    if process.returncode == 0:
        return Run(job.directory).summary() or RunError(f"{job.directory}: left no summary")
    if stop.number is not None:
        return None
    if process.returncode < 0:
        number = -process.returncode
        return RunError(f"killed by {signal.Signals(number).name}" + ", out of memory?" * (number == signal.SIGKILL))
    return RunError(last.removeprefix("tdc: ") or f"exit code {process.returncode}")


def _block_signals() -> None:
    """Hold SIGINT and SIGTERM back from this thread and the processes it starts, until those are ready for them."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
