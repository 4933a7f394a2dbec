"""A checkpoint file: written whole or not at all, read without running code, with the last good one behind it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..device.archive import Damaged, read
from ..device.files import sync_directory, write_whole

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save(directory: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) as the newest checkpoint; the one before it is kept.

    Raises RunError when it cannot be written; the checkpoints already there are then untouched.
    """
    newest = directory / NAME
    write_whole(newest, lambda file: torch.save(state, file), keep=directory / PREVIOUS)


def load(directory: Path, log: Callable[[str], Any]) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes are intact, on the CPU, or None. Raises RunError for one that is not ours."""
    newest, previous = directory / NAME, directory / PREVIOUS
    state = _read(newest, log)
    if state is not None or not previous.exists():
        return state
    state = _read(previous, log)
    if state is not None:
        log(f"{newest}: not usable, going on from the checkpoint before it")
        # Were the damaged file to stay, the next save would keep it in place of this good one.
        os.replace(previous, newest)
        sync_directory(directory)
    return state


def forget_previous(directory: Path) -> None:
    """A finished run needs no second checkpoint."""
    (directory / PREVIOUS).unlink(missing_ok=True)


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """States of the generators that dropout and the like draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Undo what was drawn since ``random_states``; a state of a device that is not used now is left out."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _read(path: Path, log: Callable[[str], Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = read(path, archive=True)
    except Damaged as error:
        log(str(error))
        return None
    return state
