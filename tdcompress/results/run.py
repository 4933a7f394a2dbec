"""What a run leaves on disk, and how it is read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.schema import TrainConfig
from ..device.files import RunError, cannot, write_text
from ..device.lock import is_owned, owned
from .identity import as_word, differences, identity, plain
from .record import Epoch, Summary, metrics_text, read_metrics_text, read_summary, summary_text

LOCK = "lock"


class Run:
    """One run's directory. ``files`` are texts to keep beside the results: {".hydra/config.yaml": "..."}."""

    def __init__(self, directory: Path | str, files: Mapping[str, str] | None = None) -> None:
        self.directory = Path(directory)
        self.files = dict(files or {})

    @contextmanager
    def locked(self) -> Iterator[Run]:
        """Own the directory, made if need be, until the block ends. Raises RunError when another process does."""
        with ExitStack() as stack:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                mine = stack.enter_context(owned(self.directory / LOCK))
            except OSError as error:
                raise cannot("make", self.directory, error) from None
            if not mine:
                raise self._busy()
            for name, text in self.files.items():
                self.write_text(name, text)
            yield self

    def refuse_busy(self) -> None:
        """Raise RunError if another process works on this run."""
        if held(self.directory):
            raise self._busy()

    def ended(self, config: TrainConfig) -> Summary | None:
        """The summary if there is nothing left to do for ``config``, else None: metrics.csv may have to be made again.

        Raises RunError if the directory holds a run of another configuration.
        """
        summary = self.summary()
        if summary is None:
            return None
        self.refuse_other(config, summary.config or None)
        return summary if summary.ended and self._has_metrics(summary) else None

    def _has_metrics(self, summary: Summary) -> bool:
        try:
            return len(read_metrics_text((self.directory / "metrics.csv").read_text())) >= (summary.epochs_done or 0)
        except FileNotFoundError:
            return not summary.epochs_done
        except (OSError, ValueError):
            return False

    def refuse_other(self, config: TrainConfig, found: Any) -> None:
        """Raise RunError unless ``found``, a configuration as saved here, is the same run as ``config``."""
        wanted = identity(plain(config))
        changed = differences(identity(found), wanted) if isinstance(found, dict) else {"config": (found, "yours")}
        if changed:
            key, (there, asked) = next(iter(changed.items()))
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise RunError(
                f"{self.directory} holds a run of another configuration ({key}: {as_word(there)} there, "
                f"{as_word(asked)} asked{more}); delete it or choose another results_dir"
            )

    def summary(self) -> Summary | None:
        """What summary.json says, or None if it is missing or unreadable."""
        return read_summary(self.directory)

    def write_summary(self, summary: Summary) -> None:
        self.write_text("summary.json", summary_text(summary))

    def add_export(self, found: dict[str, Any]) -> None:
        """Add to the summary of a run that has ended what became of it as a file, in place of one of that ``kind``.

        Raises RunError where the run goes on, or its summary cannot be read or written.
        """
        with self.locked():
            summary = self.summary()
            if summary is None or not summary.ended:
                raise RunError(f"{self.directory} has not ended")
            others = [one for one in summary.exports if isinstance(one, dict) and kind_of(one) != kind_of(found)]
            self.write_summary(replace(summary, exports=[*others, found]))

    def write_metrics(self, epochs: Sequence[Epoch]) -> None:
        """All of metrics.csv, one row an epoch: never appended to, so it can hold no torn and no double row."""
        self.write_text("metrics.csv", metrics_text(epochs))

    def write_text(self, name: str, text: str) -> None:
        write_text(self.directory / name, text)

    def _busy(self) -> RunError:
        return RunError(f"another process works on {self.directory}; wait for it or choose another results_dir")


def kind_of(export: Mapping[str, Any]) -> str:
    """What an exported file is: its format, and its weights where they are not those that this holds by default."""
    return str(export.get("kind", export.get("format", "")))


def held(directory: Path) -> bool | None:
    """Whether a process works on the run in ``directory``; None if that cannot be found out."""
    return is_owned(directory / LOCK)
