"""A run to be made, as plain data."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.schema import TrainConfig
from ...results.record import Summary

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a run to end after its step."""

BREAK = "\x1e"
"""Between the lines of one message of a run in another process, which so is one line."""

Log = Callable[[str], Any]
"""Takes what is said on the way, a message at a time."""


@dataclass(frozen=True)
class Job:
    """A run to be made, so that another process or machine can make it: it can be pickled.

    ``config``: the run's configuration; ``directory``: where its results go; ``files``: text by relative path, kept
    beside the results; ``overrides``: what the sweep chose for this run, to tell it from the others; ``dense_only``:
    as ``train`` has it; ``name``: what its lines begin with in a sweep.
    """

    config: TrainConfig
    directory: Path
    files: dict[str, str] = field(default_factory=dict)
    overrides: str = ""
    dense_only: bool = False
    name: str = ""


Ended = Callable[[Job, Summary | Exception], Any]
"""Called as each run ends, with its summary, or with the error because of which there is none."""
