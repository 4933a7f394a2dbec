"""A checkpoint file: written whole or not at all, read without running code, with the last good one behind it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..device.archive import Damaged, read
from ..device.files import RunError, sync_directory, write_whole
from ..results.record import read_summary

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = 2  # of what a checkpoint holds; see ``upgraded`` for those before


def save(directory: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) as the newest checkpoint; the one before it is kept.

    Raises RunError when it cannot be written; the checkpoints already there are then untouched.
    """
    newest, whole = directory / NAME, state | {"format": FORMAT, "tdcompress": __version__}
    write_whole(newest, lambda file: torch.save(whole, file), keep=directory / PREVIOUS)


def load(directory: Path, log: Callable[[str], Any]) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes are intact, ``upgraded``, on the CPU, or None.

    Raises RunError for one that is not ours, or a later version's.
    """
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


def upgraded(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's ``state``, read from ``path``, as this version writes it. Raises RunError for a later format.

    Format 2: ``phase`` says whether the network is at "full rank", before a switch, or of "cores"; ``start`` is that of
    the run (``start.Start.plain``), None where it began with its cores.
    Format 1: ``counts`` are those of the network that was tested last, and so are two columns of each row.
    ``best`` are number, weights and plans of the best epoch by validation, None where no images are held out.
    Format 0, of version 0.1.0, has no number and no counts; ``counts`` is then None.
    """
    number = state.get("format", 0)
    if number not in range(FORMAT + 1):
        raise RunError(
            f"{path} is of format {number}, written by tdcompress {state.get('tdcompress')}; this is {__version__}, "
            f"which reads formats up to {FORMAT}: use that version, or delete the file"
        )
    return {"counts": None, "best": None, "phase": "cores", "start": None, **state}


def chosen(state: dict[str, Any], log: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """``state`` with the weights to use: those of the best epoch by validation, or else the newest.

    ``log`` is told of the former in a line.
    """
    best = state["best"] or {}
    if best and log is not None:
        log(f"weights after epoch {best['epoch']}, the best of {state['epoch']} by validation")
    return state | best


def of_run(directory: Path, log: Callable[[str], Any]) -> dict[str, Any]:
    """The state of a run with the weights to use, see ``chosen``.

    Raises ``RunError`` where there is no run, no checkpoint, or one whose network has no cores yet.
    """
    if not directory.is_dir():
        raise RunError(f"there is no run in {directory}; tdc runs lists those there are")
    state = load(directory, log)
    if state is None:
        raise RunError(why_none(directory))
    if state["phase"] == "full rank":
        raise RunError(f"{directory} is at full rank after epoch {state['epoch']}: only after its switch it has cores")
    return chosen(state, log)


def why_none(directory: Path) -> str:
    """Why a run's directory has no checkpoint that can be read, in a line."""
    seeds = sorted(path.name for path in directory.glob("seed*"))
    if seeds:
        return f"{directory} has runs of several seeds: name one, {directory / seeds[0]}"
    if (directory / NAME).exists():
        return f"{directory / NAME} is damaged: delete the run's folder, and tdc train makes it again"
    summary = read_summary(directory)
    diverged = summary is not None and summary.status == "diverged"
    if diverged:
        reason = "it diverged, and none is kept of that"
    elif summary is None:
        reason = "no run is there"
    else:
        reason = "no epoch of it has ended" if not summary.epochs_done else "the file is gone"
    return f"{directory} has no checkpoint: {reason}"


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
        state = read(path, archive=True)
    except Damaged as error:
        log(str(error))
        return None
    if not isinstance(state, dict):
        raise RunError(f"{path} is no checkpoint of a run; delete it")
    return upgraded(state, path)
