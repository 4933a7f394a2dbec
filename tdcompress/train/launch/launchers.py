"""How the runs of a sweep are carried out, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...config.schema import LauncherConfig
from ...tensor.errors import ConfigError
from .basic import basic
from .job import Ended, Job, Log
from .local import local
from .slurm import slurm

LAUNCHERS: dict[str, Callable[[Sequence[Job], LauncherConfig, Log, Ended], None]] = {
    "basic": basic,
    "local": local,
    "slurm": slurm,
}
"""By name: functions that make all ``jobs``, pass lines to ``log``, and call ``ended`` for each run that has ended."""


def launch(jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """Make the runs of a sweep with the launcher ``settings.name``; jobs of one directory are one run.

    Raises ``ConfigError`` for an unknown name, and ``Interrupted`` upon SIGINT or SIGTERM.
    """
    if settings.name not in LAUNCHERS:
        raise ConfigError(f"unknown launcher '{settings.name}', known: {', '.join(LAUNCHERS)}")
    distinct = list({job.directory: job for job in jobs}.values())
    if distinct:
        LAUNCHERS[settings.name](distinct, settings, log, ended)
