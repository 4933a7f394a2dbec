"""``tdc train``: train the network of a configuration, or those of a sweep.

tdc train method=tt dataset=cifar10            # one network
tdc train -m method=cp,tt rank=4,8             # one after the other: a sweep
tdc train -m launcher=local seed=0,1,2         # several at once: launcher.jobs=2
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..results.record import Summary
from ..train.launch.job import Job
from ..train.launch.launchers import launch
from .shared.filters import Place
from .shared.jobs import asked, job_of
from .shared.say import complain, say
from .shared.tables import print_outcome


def run(words: Sequence[str]) -> None:
    """Train every run that ``words`` ask for, and print what became of them.

    A single run raises what is wrong with it. Of a sweep the others go on; the program then ends with code 1, or with
    2 where none was trained.
    """
    runs = asked(words, job_of)
    sweep = any(one.sweep for one in runs)
    failed: list[tuple[str, Exception]] = []
    finished: dict[Path, Summary] = {}
    names: dict[Path, str] = {}

    def fail(overrides: str, error: Exception) -> None:
        failed.append((overrides, error))
        if sweep:
            error.__traceback__ = None  # it would keep the failed run's network while the others train
            complain(f"{overrides}: {error}")

    def ended(job: Job, outcome: Summary | Exception) -> None:
        if isinstance(outcome, Exception):
            fail(job.overrides, outcome)
        else:
            finished[job.directory], names[job.directory] = outcome, job.name

    jobs: list[Job] = []
    for one in runs:
        if isinstance(one.made, Job):
            jobs.append(one.made)
        else:
            fail(one.words, one.made)
    if jobs:
        try:
            launch(jobs, jobs[0].config.launcher, say, ended)
        finally:
            if finished:
                order = dict.fromkeys(job.directory for job in jobs)
                print_outcome({directory: finished[directory] for directory in order if directory in finished}, names)
                for line in following(finished, jobs[0].config.results_dir) if sys.stdout.isatty() else ():
                    say(line)
    if failed and not sweep:
        raise failed[0][1]
    if failed:
        which = "; ".join(overrides for overrides, _ in failed)
        complain(f"{len(failed)} of {len(failed) + len(finished)} runs failed: {which}")
        sys.exit(1 if finished else 2)


def following(runs: Mapping[Path, Summary], results_dir: str) -> list[str]:
    """What can be done next with the ``runs`` of a command, as commands; nothing where none has finished."""
    done = [directory for directory, summary in runs.items() if summary.status == "finished"]
    if not done:
        return []
    place = "" if results_dir == Place().results_dir else f" {shlex.quote(f'results_dir={results_dir}')}"
    lines = [f"next: tdc plot{place}, tdc report{place}"]
    if len(done) == 1:
        lines.append(f"      tdc export {shlex.quote(f'run={done[0]}')} format=onnx")
    return lines
