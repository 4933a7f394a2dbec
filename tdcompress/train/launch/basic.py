"""A run carried out in this process, and a sweep's runs one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...config.schema import LauncherConfig
from ...results.record import Summary
from ...results.run import Run
from ...tensor.errors import ConfigError
from ..run import train
from .job import Job, Log
from .sweep import Sweep


def carried_out(job: Job, log: Log) -> Summary:
    """Make the run of ``job`` in its directory; returns its summary, and raises what ``train`` raises."""
    return train(job.config, Run(job.directory, job.files), log, dense_only=job.dense_only)


def basic(starts: Sequence[Job], jobs: Sequence[Job], settings: LauncherConfig, sweep: Sweep) -> None:
    """One after the other in this process. Raises ``Interrupted`` as soon as a run was."""
    for job in (*starts, *jobs):
        sweep.begin(job)
        try:
            summary = carried_out(job, partial(sweep.say, job))
        except (ConfigError, RuntimeError) as error:
            sweep.end(job, error)
        else:
            sweep.end(job, summary)
