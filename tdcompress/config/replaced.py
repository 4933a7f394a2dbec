"""An optimizer or a schedule in the place of the one that a yaml file names: what of that file's values it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from ..tensor.errors import ConfigError
from .command import named
from .targets import arguments


def left_out(raw: DictConfig, words: Sequence[str], choice: str) -> tuple[str, ...]:
    """Take from ``raw`` what the file of ``optim=choice`` says of an optimizer or a schedule that another replaced.

    That is, the values that the new one has no argument for; a line for each of the two says which these are. ``raw``
    is composed of ``words``. Raises ``ConfigError`` for such a value that the words or another file gave, and for a
    missing one that the new one needs.
    """
    if not any(word.lstrip("+~").startswith(("optim", "experiment")) for word in words):
        return ()  # to look at an optimizer is to import torch
    notes = []
    for part in ("optimizer", "scheduler"):
        key, values = f"optim.{part}", _plain(raw.optim[part])
        path = values.pop("_target_", None)
        taken = arguments(path, key) if path is not None else None
        if taken is None:
            continue
        odd = [name for name in values if name not in taken]
        if odd:
            usual = _plain(_usual(choice).optim[part])
            given = {name for name in values if f"{key}.{name}" in named(words)}
            own = [name for name in odd if name in given or usual.get(name) != values[name]]
            if own or usual["_target_"] == path:
                known = ", ".join(name for name in taken if name not in ("lr", "optimizer", "params"))
                raise ConfigError(f"{key}.{(own or odd)[0]}: {path} takes none, known: {known}")
            with open_dict(raw.optim[part]):
                for name in odd:
                    del raw.optim[part][name]
            kept = [f"{name}={value}" for name, value in values.items() if name in usual and name not in {*odd, *given}]
            notes.append(
                f"{key}: {path} takes no {', '.join(odd)}: left out of optim={choice}"
                + (f", whose {', '.join(kept)} it has" if kept else "")
                + (f"; it is asked after every {raw.optim.interval} (optim.interval)" if part == "scheduler" else "")
            )
        missing = [name for name, needed in taken.items() if needed and name not in (*values, "lr")]
        if missing:
            raise ConfigError(f"{key}: {path} needs {missing[0]}, for example {key}.{missing[0]}={_example(part, raw)}")
    if {"experiment", "optim"} <= named(words) and "lr" not in named(words):
        own_lr = _usual(choice).lr
        if own_lr != raw.lr:
            notes.append(f"lr={raw.lr:g} is the experiment's; optim={choice} has lr={own_lr:g}")
    return tuple(notes)


def _usual(choice: str) -> DictConfig:
    """What is so with ``optim=choice`` and nothing else chosen."""
    return hydra.compose("train", overrides=[f"optim={choice}"])


def _plain(values: DictConfig | None) -> dict[str, Any]:
    return {} if values is None else cast("dict[str, Any]", OmegaConf.to_container(values, resolve=True))


def _example(part: str, raw: DictConfig) -> str:
    return f"{raw.optim.interval}s (those of the run), or a number" if part == "scheduler" else "1"
