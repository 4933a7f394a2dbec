"""``tdc train``: train the network of a configuration, or those of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.schema import LauncherConfig
from ..results.record import Summary
from ..train.launch.job import Job
from ..train.launch.launchers import launch
from .shared.jobs import Jobs, asked
from .shared.say import complain, say
from .shared.tables import print_outcome


def run(words: Sequence[str]) -> None:
    """Train every run that ``words`` ask for, and print what became of them.

    A single run raises what is wrong with it. Of a sweep the others go on; the program then ends with code 1, or with
    2 where none was trained.
    """
    runs = asked(words, Jobs())
    sweep = any(one.sweep for one in runs)
    failed: list[tuple[str, Exception]] = []
    finished: dict[Path, Summary] = {}

    def fail(overrides: str, error: Exception) -> None:
        failed.append((overrides, error))
        if sweep:
            error.__traceback__ = None  # it would keep the failed run's network while the others train
            complain(f"{overrides}: {error}")

    def ended(job: Job, outcome: Summary | Exception) -> None:
        if isinstance(outcome, Exception):
            fail(job.overrides, outcome)
        else:
            finished[job.directory] = outcome

    jobs: list[Job] = []
    for one in runs:
        if isinstance(one.made, Job):
            jobs.append(one.made)
        else:
            fail(one.words, one.made)
    if jobs:
        try:
            launch(jobs, jobs[0].config.launcher if sweep else LauncherConfig(), say, ended)
        finally:
            if finished:
                order = dict.fromkeys(job.directory for job in jobs)
                print_outcome({directory: finished[directory] for directory in order if directory in finished})
    if failed and not sweep:
        raise failed[0][1]
    if failed:
        names = "; ".join(overrides for overrides, _ in failed)
        complain(f"{len(failed)} of {len(failed) + len(finished)} runs failed: {names}")
        sys.exit(1 if finished else 2)
