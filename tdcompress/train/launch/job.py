"""A run to be made, as plain data."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.schema import TrainConfig
from ...results.record import Summary
from ...results.run import Run

Log = Callable[[str], Any]


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """A run to be made: plain data, so that another process or machine can make it."""

    config: TrainConfig
    directory: Path
    files: dict[str, str] = field(default_factory=dict)  # kept beside the results
    overrides: str = ""  # what the sweep chose, to tell the runs apart

    def run(self, log: Log) -> Summary:
        """Train and return the summary; raises what ``train`` raises."""
        from ..run import train

        return train(self.config, Run(self.directory, self.files), log)

    @property
    def name(self) -> str:
        """``tt-8/seed0``."""
        return "/".join(self.directory.parts[-2:])


Ended = Callable[[Job, Summary | Exception], Any]  # told of each run: its summary, or why it has none
