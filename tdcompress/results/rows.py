"""Tables of runs and of their epochs, read from the runs' directories."""

from __future__ import annotations

import warnings
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..tensor.errors import ConfigError
from .identity import choices
from .run import METRICS, held, read_summary

if TYPE_CHECKING:
    import pandas


COLUMNS = (
    "dataset", "arch", "method", "variant", "rank", "seed", "status", "epochs_done", "epochs", "lr", "batch_size",
    "setting", "parameters", "dense_parameters", "compression_ratio", "macs", "dense_macs", "test_accuracy",
    "best_test_accuracy", "train_seconds_per_epoch", "device", "torch", "tdcompress", "directory",
)  # fmt: skip


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
    summary = read_summary(directory)
    if summary is None:
        dataset, arch, name, seed = directory.parts[-4:]
        status = "running" if held(directory) else "broken"
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
    if row["status"] == "running" and not held(directory):
        row["status"] = "interrupted"
    return row


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
