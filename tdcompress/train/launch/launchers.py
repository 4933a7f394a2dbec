"""How the runs of a sweep are carried out, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ...config.schema import LauncherConfig
from ...tensor.errors import ConfigError
from ..interrupt import Interrupted
from .basic import basic
from .display import shown
from .job import Ended, Job, Log
from .local import local
from .slurm import slurm
from .starts import starts_of
from .sweep import Sweep, named

LAUNCHERS: dict[str, Callable[[Sequence[Job], Sequence[Job], LauncherConfig, Sweep], None]] = {
    "basic": basic,
    "local": local,
    "slurm": slurm,
}
"""By name: functions that make ``starts`` and ``jobs``, each after those it goes on from, and tell the sweep how."""

_OF_A_CLUSTER = ("partition", "account", "cpus", "gpus", "minutes", "requeues")


def launch(jobs: Sequence[Job], settings: LauncherConfig, log: Log, ended: Ended) -> None:
    """Make the runs of a sweep with the launcher ``settings.name``; jobs of one directory are one run.

    Dense epochs that several of them have in common are trained first, once; where that fails, each trains its own.
    ``log`` gets what is said on the way, see ``Sweep``, and a terminal shows how far it is. Raises ``ConfigError`` for
    an unknown name and for one that starts processes where ``torchrun`` has done so, and ``Interrupted`` upon SIGINT or
    SIGTERM.
    """
    if settings.name not in LAUNCHERS:
        raise ConfigError(f"unknown launcher '{settings.name}', known: {', '.join(LAUNCHERS)}")
    if LAUNCHERS[settings.name] is not basic and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"launcher={settings.name} starts processes of its own, and so does torchrun: leave one out")
    if LAUNCHERS[settings.name] is basic and settings.jobs != 1:
        others = ", ".join(name for name in LAUNCHERS if name != settings.name)
        raise ConfigError(f"launcher.jobs={settings.jobs} is of the launchers {others}: choose one with launcher=")
    odd = next((key for key in _OF_A_CLUSTER if getattr(settings, key) != getattr(LauncherConfig(), key)), None)
    if odd is not None and settings.name != "slurm":
        raise ConfigError(f"launcher.{odd}={getattr(settings, odd)} is asked of a cluster: launcher=slurm")
    distinct = named(list({job.directory: job for job in jobs}.values()))
    if again := len(jobs) - len(distinct):
        log(f"{again} of {len(jobs)} runs are others again: their words differ in what decides no result")
    starts = starts_of(distinct)
    sweep = Sweep(starts, distinct, log, ended)
    try:
        with shown(sweep):
            LAUNCHERS[settings.name](starts, distinct, settings, sweep)
    except Interrupted as stop:
        if sweep.alone:
            raise
        raise Interrupted(f"{stop} ({sweep.counted('done')} of {len(distinct)} runs done)", stop.code) from None
