"""The runs of a sweep as they are made: whose a line is, how far all of them are, and when the last will have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ...config.schema import validate
from ...results.identity import arch_name, identity, method_name, plain, resolved
from ...results.record import Summary, read_summary
from ...tensor.errors import ConfigError
from ..full_rank.shared import begins_with, is_there
from ..full_rank.start import last_epoch
from .job import Ended, Job, Log

_NAMED = ("arch", "method", "rank", "seed")


def named(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with names: arch, method, rank and seed, and the words of the sweep by which they differ besides."""
    words = [job.overrides.split() for job in jobs]
    common = set.intersection(*map(set, words))
    return [
        replace(job, name=" ".join([_name(job), *(word for word in own if word not in common and _is_other(word))]))
        for job, own in zip(jobs, words, strict=True)
    ]


def _name(job: Job) -> str:
    config = job.config
    rank = identity(plain(config))["rank"]
    return " ".join(filter(None, (arch_name(config), method_name(config.method), rank, f"seed {config.seed}")))


def _is_other(word: str) -> bool:
    return word.split("=")[0] not in _NAMED


@dataclass
class Work:
    """A run to be made: how many ``epochs`` it has in the end, and had when the sweep came to it."""

    job: Job
    epochs: int
    before: int = 0
    state: str = "waiting"  # then running, then done or failed
    after: int = 0  # epochs, once it is done

    def trained(self) -> int:
        """How many epochs it has."""
        if self.state != "running":
            return self.after if self.state == "done" else self.before
        summary = read_summary(self.job.directory)
        return max(self.before, summary.epochs_done if summary is not None else 0)


class Sweep:
    """Takes what becomes of ``starts`` and ``jobs``, from any thread.

    ``log`` gets what the runs say, each line behind the name of its run, the lines of one message together, and how far
    the sweep is whenever a run has ended, unless that is ``drawn`` all the time; of a single run its lines alone.
    """

    def __init__(self, starts: Sequence[Job], jobs: Sequence[Job], log: Log, ended: Ended) -> None:
        self.log, self.ended, self.alone = log, ended, len(jobs) < 2
        self.starts = {job.directory: Work(job, last_epoch(resolved(job.config))) for job in starts}
        self.runs = {job.directory: Work(job, job.config.epochs) for job in jobs}
        self.drawn, self.began = False, time.monotonic()
        self._lock = threading.RLock()
        self._look()

    def begin(self, job: Job) -> None:
        """The run of ``job`` is being made from now on."""
        with self._lock:
            if all(work.state == "waiting" for work in self._all()):  # before that a queue's time has passed
                self.began = time.monotonic()
            self._work(job).state = "running"

    def say(self, job: Job, message: str) -> None:
        """A message of one line or several."""
        with self._lock:
            self.log(message if self.alone else "\n".join(f"{job.name}  {line}" for line in message.split("\n")))

    def end(self, job: Job, outcome: Summary | Exception) -> None:
        """The run of ``job`` has ended."""
        with self._lock:
            work = self._work(job)
            work.state = "failed" if isinstance(outcome, Exception) else "done"
            work.after = 0 if isinstance(outcome, Exception) else outcome.epochs_done
            if job.directory in self.runs:
                self.ended(job, outcome)
                if not self.alone and not self.drawn:
                    self.log(self.told())
            else:
                self._look()
                if isinstance(outcome, Exception):
                    self.log(f"{job.name}: {outcome}; each run trains these epochs itself")

    @property
    def running(self) -> list[Work]:
        """What is being made."""
        return [work for work in self._all() if work.state == "running"]

    def counted(self, state: str) -> int:
        """How many runs are in this state."""
        return sum(work.state == state for work in self.runs.values())

    def told(self) -> str:
        """How far the sweep is, in a line."""
        parts = [f"{self.counted('done')} of {len(self.runs)} runs done"]
        counts = {"failed": self.counted("failed"), "running": self.counted("running"), "left": self.counted("waiting")}
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        left = self.seconds_left()
        if left:
            end = datetime.now() + timedelta(seconds=left)
            parts.append(f"ends about {end:%H:%M}" if left < 72_000 else f"ends about {end:%a %d %b %H:%M}")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Until the last run has ended, if epochs go on to take what they took; None before the first one."""
        made = sum(work.trained() - work.before for work in self._all() if work.state in ("running", "done"))
        left = sum(work.epochs - work.trained() for work in self._all() if work.state in ("running", "waiting"))
        return (time.monotonic() - self.began) * left / made if made else None

    def _all(self) -> list[Work]:
        return [*self.starts.values(), *self.runs.values()]

    def _work(self, job: Job) -> Work:
        return self.starts[job.directory] if job.directory in self.starts else self.runs[job.directory]

    def _look(self) -> None:
        """See how many epochs those that wait have."""
        for work in self._all():
            if work.state == "waiting":
                work.before = _trained(work.job)


def _trained(job: Job) -> int:
    """How many epochs a run has before it is made: its own, or where it has none the shared dense ones."""
    found = read_summary(job.directory)
    if found is None or not found.epochs_done:
        with suppress(ConfigError):  # which whoever makes the run is told
            start = None if job.dense_only else begins_with(validate(job.config), job.config.precision)
            found = read_summary(start) if start is not None and is_there(start) else None
    return found.epochs_done if found is not None else 0
