"""What a run leaves on disk, and how it is read back."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .config import ConfigError, TrainConfig
from .identity import choices, differences, identity, plain, run_directory

if TYPE_CHECKING:
    import pandas

__all__ = ["METRICS", "Run", "RunError", "read_metrics", "read_runs", "run_directory"]

METRICS = (
    "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    "train_seconds", "test_seconds", "images_per_second", "peak_memory_mb", "degeneracy",
)  # fmt: skip
COLUMNS = (
    "dataset", "arch", "method", "variant", "rank", "seed", "status", "epochs_done", "epochs", "lr", "batch_size",
    "setting", "parameters", "dense_parameters", "compression_ratio", "macs", "dense_macs", "test_accuracy",
    "best_test_accuracy", "train_seconds_per_epoch", "device", "torch", "tdcompress", "directory",
)  # fmt: skip
ENDED = ("finished", "diverged")  # nothing is left to do


class RunError(ConfigError):
    """A run's directory cannot be used: busy, not writable, full, or another configuration's."""


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
            raise _cannot("make", self.directory, error) from None
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
        if _held(self.directory):
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
        return _read_summary(self.directory)

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


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], keep: Path | None = None) -> None:
    """Make ``path`` what ``write`` writes, in one step, safe against a crash; the file before it becomes ``keep``.

    Raises RunError if it cannot be written; what was there is then untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save hides a full disk in a RuntimeError
        with suppress(OSError):
            temporary.unlink()
        raise _cannot("write", path, error) from None


def write_text(path: Path, text: str) -> None:
    """Make ``path`` this text, as ``write_whole`` does."""
    write_whole(path, lambda file: file.write(text.encode()))


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_runs(results_dir: Path | str, **filters: Any) -> pandas.DataFrame:
    """One row a run under ``results_dir``/runs, the columns ``COLUMNS``; ``filters``: column=value or [values].

    ``status`` is finished, diverged, running (a process holds its lock), interrupted (none does), or broken (its
    summary is missing or unreadable; only what the path says is then known). ``rank`` is text, empty where no layer
    has one. ``variant`` and ``setting`` are the other choices of the method and of everything else. Quantities are
    those of summary.json. A filter on a column of numbers compares numbers: lr="1e-2" finds 0.01.
    """
    import pandas

    found = sorted(Path(results_dir).glob("runs/*/*/*/seed*"))
    return chosen(pandas.DataFrame([_row(directory) for directory in found], columns=list(COLUMNS)), **filters)


def chosen(runs: pandas.DataFrame, **filters: Any) -> pandas.DataFrame:
    """The rows where every column=value or [values] of ``filters`` holds. Raises ``ConfigError`` for other columns."""
    import pandas

    unknown = sorted(set(filters) - set(COLUMNS))
    if unknown:
        raise ConfigError(
            f"unknown key '{unknown[0]}', known: results_dir, and to choose among the runs {', '.join(COLUMNS)}"
        )
    for column, wanted in filters.items():
        values = list(wanted) if isinstance(wanted, (list, tuple, set)) else [wanted]
        if pandas.api.types.is_numeric_dtype(runs[column]):
            values = [float(value) for value in values if _is_number(value)]
        runs = runs[runs[column].isin(values)]
    return runs.reset_index(drop=True)


def _without_place(config: dict[str, Any], results_dir: Path) -> dict[str, Any]:
    """The configuration with the run that it starts from named from beside ``results_dir``, wherever that lies."""
    if not config.get("init_from"):
        return config
    folder, start = results_dir.resolve(), Path(str(config["init_from"])).resolve()
    if not start.is_relative_to(folder):
        return config
    return config | {"init_from": Path(folder.name, start.relative_to(folder)).as_posix()}


def read_metrics(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Every epoch of every run of ``read_runs``: the run's columns, then those of metrics.csv.

    ``test_accuracy`` is the epoch's. Runs without an epoch have no row; a file that is not a table of ``METRICS``
    is left out with a warning.
    """
    import numpy
    import pandas

    values, owners = array("d"), []
    for position, directory in enumerate(runs["directory"]):
        found = _metric_values(Path(directory))
        values += found
        owners += [position] * (len(found) // len(METRICS))
    # One table for all files: a parse by pandas would cost a millisecond a file.
    metrics = pandas.DataFrame(numpy.frombuffer(values).reshape(-1, len(METRICS)).copy(), columns=list(METRICS))
    kept = runs.drop(columns=[column for column in METRICS if column in runs]).iloc[owners].reset_index(drop=True)
    return pandas.concat([kept, metrics.astype({"epoch": int})], axis=1)


def _metric_values(directory: Path) -> array[float]:
    """The numbers of a metrics.csv, row after row."""
    values = array("d")
    try:
        text = (directory / "metrics.csv").read_text()
        header, *lines = text.split("\n")
        if header != ",".join(METRICS) or lines.pop() != "":
            raise ValueError
        for line in lines:
            epoch, *others = line.split(",")
            if len(others) != len(METRICS) - 1:
                raise ValueError
            values.append(int(epoch))
            values.extend(map(float, others))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, IndexError):
        warnings.warn(f"{directory / 'metrics.csv'} is damaged and left out; tdc train writes it again", stacklevel=3)
        return array("d")
    return values


def _row(directory: Path) -> dict[str, Any]:
    summary = _read_summary(directory)
    if summary is None:
        dataset, arch, name, seed = directory.parts[-4:]
        status = "running" if _held(directory) else "broken"
        number = int(seed[4:]) if seed[4:].lstrip("-").isdigit() else None
        row = {"dataset": dataset, "arch": arch, "method": name.split("-")[0], "seed": number, "status": status}
        return {"variant": "", "rank": "", "setting": "", **row, "directory": str(directory)}
    config = summary.get("config")
    config = config if isinstance(config, dict) else {}
    config = _without_place(config, directory.parents[4])
    variant, setting = choices(config) if config else ("", "")
    versions = summary.get("versions")
    row = {column: summary.get(column) for column in COLUMNS}
    row |= {"variant": variant, "setting": setting, "lr": config.get("lr"), "batch_size": config.get("batch_size")}
    row |= {key: versions.get(key) for key in ("torch", "tdcompress") if isinstance(versions, dict)}
    row |= {"directory": str(directory), "rank": row["rank"] or ""}  # grouping by rank would drop rows that have none
    if row["status"] == "running" and not _held(directory):
        row["status"] = "interrupted"
    return row


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _read_summary(directory: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def _held(directory: Path) -> bool:
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


def _cannot(verb: str, path: Path, error: Exception) -> RunError:
    reason = getattr(error, "strerror", None) or "the disk may be full"
    return RunError(f"cannot {verb} {path}: {reason}; make room or give permission, or choose another results_dir")
