"""What a run leaves on disk, and how it is read back."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..config.schema import TrainConfig
from ..device.files import RunError, cannot, write_text
from .identity import differences, identity, plain

METRICS = (
    "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    "train_seconds", "test_seconds", "images_per_second", "peak_memory_mb", "degeneracy",
)  # fmt: skip
ENDED = ("finished", "diverged")  # nothing is left to do


class Run:
    """One run's directory. ``files`` are texts to keep beside the results: {".hydra/config.yaml": "..."}."""

    def __init__(self, directory: Path | str, files: Mapping[str, str] | None = None) -> None:
        self.directory = Path(directory)
        self.files = dict(files or {})

    @contextmanager
    def locked(self) -> Iterator[Run]:
        """Own the directory, made if need be, until the block ends. Raises RunError when another process does."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = open(self.directory / "lock", "a+")  # noqa: SIM115 (closed below, which also releases it)
        except OSError as error:
            raise cannot("make", self.directory, error) from None
        os.register_at_fork(after_in_child=handle.close)  # or readers of images would own it seconds after a kill
        with handle:
            # Readers of the results touch the lock for an instant, so one refusal is not yet an owner.
            for attempt in range(5):
                if _take(handle, fcntl.LOCK_EX):
                    break
                time.sleep(0.1 * (attempt > 0))
            else:
                raise self._busy()
            for name, text in self.files.items():
                self.write_text(name, text)
            yield self

    def refuse_busy(self) -> None:
        """Raise RunError if another process works on this run."""
        if held(self.directory):
            raise self._busy()

    def ended(self, config: TrainConfig) -> dict[str, Any] | None:
        """The summary if there is nothing left to do for ``config``, else None.

        Raises RunError if the directory holds a run of another configuration.
        """
        summary = self.summary()
        if summary is None:
            return None
        self.refuse_other(config, summary.get("config"))
        return summary if summary.get("status") in ENDED else None

    def refuse_other(self, config: TrainConfig, found: Any) -> None:
        """Raise RunError unless ``found``, a configuration as saved here, is the same run as ``config``."""
        wanted = identity(plain(config))
        changed = differences(identity(found), wanted) if isinstance(found, dict) else {"config": (found, "yours")}
        if changed:
            key, (there, asked) = next(iter(changed.items()))
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise RunError(
                f"{self.directory} holds a run of another configuration ({key}: {there} there, {asked} asked{more}); "
                "delete it or choose another results_dir"
            )

    def summary(self) -> dict[str, Any] | None:
        """What summary.json says, or None if it is missing or unreadable."""
        return read_summary(self.directory)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self.write_text("summary.json", json.dumps(summary, indent=1) + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """All of metrics.csv, one row an epoch: never appended to, so it can hold no torn and no double row."""
        text = io.StringIO()
        table = csv.DictWriter(text, METRICS, restval="nan", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        self.write_text("metrics.csv", text.getvalue())

    def write_text(self, name: str, text: str) -> None:
        write_text(self.directory / name, text)

    def _busy(self) -> RunError:
        return RunError(f"another process works on {self.directory}; wait for it or choose another results_dir")


def read_summary(directory: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def held(directory: Path) -> bool:
    try:
        with open(directory / "lock") as handle:
            return not _take(handle, fcntl.LOCK_SH)
    except OSError:
        return False


def _take(handle: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
