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

Log = Callable[[str], Any]
"""Takes what is said on the way, a line at a time."""


@dataclass(frozen=True)
class Job:
    """A run to be made, so that another process or machine can make it: it can be pickled.

    ``config``: the run's configuration; ``directory``: where its results go; ``files``: text by relative path, kept
    beside the results; ``overrides``: what the sweep chose for this run, to tell it from the others; ``dense_only``:
    as ``train`` has it.
    """

    config: TrainConfig
    directory: Path
    files: dict[str, str] = field(default_factory=dict)
    overrides: str = ""
    dense_only: bool = False

    @property
    def name(self) -> str:
        """The last two folders of the directory, such as ``tt-8/seed0``."""
        return "/".join(self.directory.parts[-2:])


Ended = Callable[[Job, Summary | Exception], Any]
"""Called as each run ends, with its summary, or with the error because of which there is none."""
