"""How the runs of a sweep are carried out, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ...config.schema import LauncherConfig
from ...results.record import Summary
from ...tensor.errors import ConfigError
from .basic import basic
from .job import Ended, Job, Log
from .local import local
from .slurm import slurm
from .starts import starts_of

LAUNCHERS: dict[str, Callable[[Sequence[Job], Sequence[Job], LauncherConfig, Log, Ended], None]] = {
    "basic": basic,
    "local": local,
    "slurm": slurm,
}
"""By name: functions that make all ``starts`` and then all ``jobs``, pass lines to ``log``, and call ``ended`` for each
run that has ended."""


def launch(jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """Make the runs of a sweep with the launcher ``settings.name``; jobs of one directory are one run.

    Dense epochs that several of them have in common are trained first, once; where that fails, each trains its own.
    Raises ``ConfigError`` for an unknown name and for one that starts processes where ``torchrun`` has done so, and
    ``Interrupted`` upon SIGINT or SIGTERM.
    """
    if settings.name not in LAUNCHERS:
        raise ConfigError(f"unknown launcher '{settings.name}', known: {', '.join(LAUNCHERS)}")
    if LAUNCHERS[settings.name] is not basic and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"launcher={settings.name} starts processes of its own, and so does torchrun: leave one out")
    distinct = list({job.directory: job for job in jobs}.values())
    starts = {job.directory: job for job in starts_of(distinct)}

    def told(job: Job, outcome: Summary | Exception) -> None:
        if job.directory not in starts:
            ended(job, outcome)
        elif isinstance(outcome, Exception):
            log(f"{job.directory}: {outcome}; each run trains these epochs itself")

    if distinct:
        LAUNCHERS[settings.name](list(starts.values()), distinct, settings, log, told)
