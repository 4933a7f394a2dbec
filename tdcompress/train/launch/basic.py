"""A run carried out in this process, and a sweep's runs one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.schema import LauncherConfig
from ...results.record import Summary
from ...results.run import Run
from ...tensor.errors import ConfigError
from ..run import train
from .job import Ended, Job, Log


def carried_out(job: Job, log: Log) -> Summary:
    """Make the run of ``job`` in its directory; returns its summary, and raises what ``train`` raises."""
    return train(job.config, Run(job.directory, job.files), log, dense_only=job.dense_only)


def basic(starts: Sequence[Job], jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """One after the other in this process. Raises ``Interrupted`` as soon as a run was."""
    for job in (*starts, *jobs):
        try:
            summary = carried_out(job, log)
        except (ConfigError, RuntimeError) as error:
            ended(job, error)
        else:
            ended(job, summary)
