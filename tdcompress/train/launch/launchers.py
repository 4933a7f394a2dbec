"""How the runs of a sweep are carried out, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...config.schema import LauncherConfig
from ...tensor.errors import ConfigError
from .job import Ended, Job, Log
from .local import local


def basic(jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """One after the other in this process. Raises ``Interrupted`` as soon as a run was."""
    for job in jobs:
        try:
            summary = job.run(log)
        except (ConfigError, RuntimeError) as error:
            ended(job, error)
        else:
            ended(job, summary)


def slurm(jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """As jobs of a Slurm cluster, see ``cluster.slurm``."""
    from .slurm import slurm

    slurm(jobs, settings, log, ended)


LAUNCHERS: dict[str, Callable[[Sequence[Job], LauncherConfig, Log, Ended], None]] = {
    "basic": basic,
    "local": local,
    "slurm": slurm,
}


def launch(jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """Make the runs of a sweep; those that share a directory are one. Raises ``Interrupted`` upon SIGINT or SIGTERM."""
    if settings.name not in LAUNCHERS:
        raise ConfigError(f"unknown launcher '{settings.name}', known: {', '.join(LAUNCHERS)}")
    distinct = list({job.directory: job for job in jobs}.values())
    if distinct:
        LAUNCHERS[settings.name](distinct, settings, log, ended)
