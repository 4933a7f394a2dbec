"""What ``train``, ``show`` and ``compress`` share: from the words of a command to configurations and jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...config.compose import Composed, baseline, call_composed, typed
from ...config.schema import TrainConfig
from ...results.identity import identity, run_directory
from ...results.record import read_summary
from ...tensor.errors import ConfigError
from ...tensor.rank import reached
from ...train.launch.job import Job
from ...train.weights import read_weights
from .say import say

T = TypeVar("T")


@dataclass(frozen=True)
class Asked(Generic[T]):
    """What a command asks for, or one run of its sweep: its own words, and what was made of it or why nothing was."""

    words: str
    sweep: bool
    made: T | ConfigError

    def get(self) -> T:
        """What was made. Raises the ``ConfigError`` where nothing was."""
        if isinstance(self.made, ConfigError):
            raise self.made
        return self.made


def asked(words: Sequence[str], make: Callable[[Composed], T]) -> list[Asked[T]]:
    """What ``make`` makes of every configuration that ``words`` ask for, in order.

    What was left out of the yaml files is said, once. A ``ConfigError`` that ``make`` raises stands in its place; one
    that the composition raises is raised.
    """
    found: list[Asked[T]] = []
    noted: set[str] = set()

    def job(composed: Composed) -> None:
        made: T | ConfigError
        for note in composed.notes:
            if note not in noted:
                say(note)
        noted.update(composed.notes)
        try:
            made = make(composed)
        except ConfigError as error:  # to Hydra it would be the end of the sweep
            made = error
        found.append(Asked(" ".join(composed.words), composed.sweep, made))

    call_composed(words, job)
    return found


def config(composed: Composed) -> TrainConfig:
    """The checked configuration: with ``init_from``, of the network that was saved there."""
    return typed(as_saved(composed))


def job_of(composed: Composed) -> Job:
    """The job of a configuration, its directory and the files beside its results.

    Raises ``ConfigError`` for what cannot be used.
    """
    composed = as_saved(composed)
    config = typed(composed)
    usual = baseline([f"{group}={name}" for group, name in _presets(config).items()])
    return Job(config, _directory(config, usual), composed.files(), " ".join(composed.words))


def _presets(config: TrainConfig) -> dict[str, str]:
    """The choice of each group that says what is usual; one's own data and networks are changes of the default's."""
    chosen = {"method": config.method.format}
    for group, own in (("dataset", config.dataset), ("arch", config.arch)):
        chosen[group] = type(own)().name if own.target else own.name
    return chosen


def _directory(config: TrainConfig, usual: TrainConfig) -> Path:
    """Of the run: that of the same one at precision=auto where that began with the precision which is asked for."""
    directory, auto = run_directory(config, usual), run_directory(replace(config, precision="auto"), usual)
    begun = None if directory.exists() else read_summary(auto)
    return auto if begun is not None and begun.precision == config.precision else directory


def as_saved(composed: Composed) -> Composed:
    """With ``init_from``, what the network was saved with, unless the command line or an experiment says otherwise.

    Images are held out as they were before, so that none of them was trained on; where that cannot be, it is said.
    """
    if composed.init_from is None:
        return composed
    weights, given = read_weights(composed.init_from), composed.given
    if not weights.config:
        return composed
    if "experiment" not in given:
        parts = ("dataset", "arch", "method", "rank") if weights.cores else ("dataset", "arch")
        saved = weights.config | {"rank": reached(weights.config["rank"])}
        composed = composed.after({part: saved[part] for part in parts if part not in given})
    return _held_out_as_before(composed, weights.config)


def _held_out_as_before(composed: Composed, saved: dict[str, Any]) -> Composed:
    there, here = (identity(values)["dataset"] for values in (saved, composed.plain()))
    if here["validation"] == 0 or any(here[key] != there[key] for key in ("name", "target")):
        return composed
    if here["validation"] > there["validation"] or here["limit"] != there["limit"]:
        say(f"init_from={composed.init_from} was trained on images that are held out now: their accuracy is too high")
    if here["validation_seed"] is not None:
        return composed
    before = there["validation_seed"]
    return composed.holding({"dataset": {"validation_seed": saved["seed"] if before is None else before}})
