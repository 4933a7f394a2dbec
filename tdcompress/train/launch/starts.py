"""The dense epochs that runs of a sweep have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...config.schema import TrainConfig, validate
from ...results.identity import arch_name, identity, plain
from ...results.run import Run
from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from .. import checkpoint
from ..full_rank.shared import dense_run_of, directory_of, trained
from .job import Job


def starts_of(jobs: Sequence[Job]) -> list[Job]:
    """A job for the dense epochs that at least two of these runs will go on from and that are not trained yet, or lost.

    Those that have begun go on from their own, and so do those of several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return []
    sharing: dict[Path, list[Job]] = {}
    apart = []  # the dense ones among them may begin with the dense epochs of others
    for job in jobs:
        with suppress(ConfigError):  # which whoever makes the run is told
            directory = directory_of(validate(job.config))
            if _has_begun(job):
                continue
            if directory is not None:
                sharing.setdefault(directory, []).append(job)
            else:
                apart.append(identity(plain(job.config)))
    return [
        replace(first, directory=directory, files={}, dense_only=True, name=_name(first.config))
        for directory, (first, *others) in sharing.items()
        if (others or dense_run_of(first.config) in apart) and trained(directory, lambda line: None) is None
    ]


def awaited(job: Job, starts: Sequence[Job]) -> set[Path]:
    """The directories of those ``starts`` with whose dense epochs the run of ``job`` will begin."""
    with suppress(ConfigError):  # which whoever makes the run is told
        config = validate(job.config)
        own, whole = directory_of(config), identity(plain(config))
        if not _has_begun(job):
            return {one.directory for one in starts if one.directory == own or dense_run_of(one.config) == whole}
    return set()


def _name(config: TrainConfig) -> str:
    return f"{arch_name(config)} {BASELINE} start seed {config.seed}"


def _has_begun(job: Job) -> bool:
    summary = Run(job.directory).summary()
    return (job.directory / checkpoint.NAME).exists() or (summary is not None and summary.ended)
