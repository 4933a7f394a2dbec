"""Dense epochs that several runs have in common: trained once, as a run of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config.schema import AUTO, MethodConfig, OptimConfig, TrainConfig
from ...data.datasets import Splits
from ...device.files import RunError
from ...results.identity import identity, plain, resolved, typed
from ...results.record import read_summary
from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from ...tensor.rank import Size
from .. import checkpoint
from .start import last_epoch


def directory_of(config: TrainConfig) -> Path | None:
    """Where the dense epochs of a run of ``config`` lie if runs share them, ``<results_dir>/starts/<hash>/seed<k>``.

    The hash is of all that those epochs depend on, among it when they end; not of what comes after them. None for a
    run that begins with its cores or with trained weights, or whose optimizer has groups of its own for the cores.
    """
    asked = resolved(config)
    apart = config.method.decay != MethodConfig().decay or config.optim.core_lr != OptimConfig().core_lr
    if asked.full_rank_epochs == 0 or config.init_from is not None or apart:
        return None
    decides = dense_run_of(config) | {"full_rank_epochs": asked.full_rank_epochs, "last": last_epoch(asked)}
    del decides["seed"]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]
    return Path(config.results_dir) / "starts" / digest / f"seed{config.seed}"


def dense(config: TrainConfig) -> TrainConfig:
    """The dense run of which the dense epochs of a run of ``config`` are the first."""
    return replace(config, method=MethodConfig(BASELINE), rank=Size(1), full_rank_epochs=0)


def dense_run_of(config: TrainConfig) -> dict[str, Any]:
    """What decides the results of ``dense(config)``: equal for all runs whose dense epochs are the first of one run."""
    return identity(plain(dense(config)))


def begins_with(config: TrainConfig, precision: str) -> Path | None:
    """Where the dense epochs lie, or will, that a run of ``config`` goes on from, see ``directory_of``.

    A dense run goes on from those of other runs that are its own first ones, the most that are trained by now in the
    ``precision`` that it computes in, in any where that is ``auto``.
    """
    asked = identity(plain(config))
    if asked != dense_run_of(config):
        return directory_of(config)
    found: dict[Path, int] = {}
    for directory in Path(config.results_dir).glob(f"starts/*/seed{config.seed}"):
        summary = read_summary(directory)
        if summary is None or not is_there(directory) or precision not in (AUTO, summary.config["precision"]):
            continue
        if identity(summary.config | {"precision": config.precision}) == asked:
            found[directory] = summary.epochs_done
    return max(found, key=lambda directory: found[directory], default=None)


def is_there(directory: Path) -> bool:
    """Whether the dense epochs of this directory are trained, and there is something to go on from."""
    summary = read_summary(directory)
    return summary is not None and summary.status == "finished" and (directory / checkpoint.NAME).exists()


def trained(directory: Path, log: Callable[[str], Any]) -> dict[str, Any] | None:
    """The checkpoint at the end of these dense epochs; None where they are not trained, or it cannot be read."""
    try:
        return checkpoint.load(directory, log) if is_there(directory) else None
    except RunError as error:
        log(str(error))
        return None


def state_in(directory: Path, config: TrainConfig, data: Splits, log: Callable[[str], Any]) -> dict[str, Any] | None:
    """The checkpoint at the end of shared dense epochs, for a run of ``config`` to go on from; None if there is none.

    None, too, where they were computed in another precision, by several processes, or of other ``data``.
    """
    state = trained(directory, log)
    if state is None or state["config"]["precision"] != config.precision:
        return None
    summary = read_summary(directory)
    if summary is not None and summary.processes > 1:  # which have other statistics of their shares of a batch
        return None
    if data.changes(state.get("images"), summary.normalisation if summary is not None else {}):
        log(f"{directory} is of other data than there are now, and left as it is: the dense epochs are made again")
        return None
    return state


def unneeded(results_dir: Path, configs: Iterable[Mapping[str, Any]]) -> list[Path]:
    """The shared dense epochs under ``results_dir`` with which no run of these ``plain`` configurations begins.

    None where there is a configuration of a later version, of which that cannot be known.
    """
    needed: set[Path | None] = set()
    for values in configs:
        try:
            config = replace(typed(values), results_dir=str(results_dir))
        except ConfigError:
            return []
        # A run writes down the precision that it computes in, whatever it was asked for.
        needed |= {directory_of(config), directory_of(replace(config, precision="auto"))}
    return [directory for directory in sorted(results_dir.glob("starts/*/seed*")) if directory not in needed]
