"""What a repository keeps of runs/: summary.csv, a row a run, and metrics.csv, a row an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas

from ..device.files import write_text
from ..tensor.errors import ConfigError
from .record import COUNTS, METRICS
from .rows import COLUMNS, WHOLE, chosen, read_metrics, read_runs

TEXT = (
    *("dataset", "arch", "method", "variant", "rank", "setting", "status", "device", "exported", "exported_on"),
    "dataset_label",
    *("torch", "tdcompress"),
)
_TABLES = {"summary.csv": COLUMNS, "metrics.csv": ("directory", *METRICS)}


def read_results(results_dir: Path | str, **filters: Any) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The runs (columns ``COLUMNS``) and their epochs (directory and ``METRICS``) under ``results_dir``.

    A run is read from its directory where there is one that is not broken, else from the two tables; so whoever has
    only the tables, or has them and runs of their own, draws the same figures. ``filters`` as in ``read_runs``. Raises
    ``ConfigError`` for tables that are damaged.
    """
    runs, folder = read_runs(results_dir), Path(results_dir)
    tables = [_table(folder / name, columns) for name, columns in _TABLES.items() if (folder / name).is_file()]
    if len(tables) == len(_TABLES):
        runs = runs[(runs["status"] != "broken") | ~runs["directory"].isin(tables[0]["directory"])]
    epochs = read_metrics(runs)[["directory", *METRICS]]
    if len(tables) == len(_TABLES):
        kept, kept_epochs = tables
        kept = kept[~kept["directory"].isin(runs["directory"])]
        kept_epochs = kept_epochs[kept_epochs["directory"].isin(kept["directory"])]
        runs, epochs = (_joined(both) for both in ((runs, kept), (epochs, kept_epochs)))
    runs = chosen(runs.sort_values("directory"), **filters)
    return runs, epochs[epochs["directory"].isin(runs["directory"])].reset_index(drop=True)


def write_results(
    results_dir: Path | str, runs: pandas.DataFrame, epochs: pandas.DataFrame, out: Path | str | None = None
) -> list[Path]:
    """Write both tables: every run but broken ones, directories relative to ``results_dir``; the files written.

    They go to ``out``, by default there. Whole numbers are written as such, also in columns where some are not known.
    """
    folder = Path(results_dir)
    runs = runs[runs["status"] != "broken"].replace({"status": {"running": "interrupted"}})
    epochs = epochs[epochs["directory"].isin(runs["directory"])]
    written = [(folder if out is None else Path(out)) / name for name in ("summary.csv", "metrics.csv")]
    # Counts keep all their digits; of the epochs' other numbers, six say all that a figure shows.
    epochs = epochs.astype(dict.fromkeys(COUNTS, "Int64"))  # which a column with gaps can be, too
    runs = runs.assign(**{name: _whole(runs[name]) for name in WHOLE})
    for path, table, digits in zip(written, (runs, epochs), (None, "%.6g"), strict=True):
        relative = [Path(directory).relative_to(folder).as_posix() for directory in table["directory"]]
        text = table.assign(directory=relative).to_csv(index=False, float_format=digits, lineterminator="\n")
        write_text(path, text)
    return written


def warn_of_broken(runs: pandas.DataFrame) -> None:
    """Name the runs that no table and no figure has."""
    for directory in runs.loc[runs["status"] == "broken", "directory"]:
        warnings.warn(f"{directory} is left out: its summary.json is missing or damaged", stacklevel=3)


def _table(path: Path, columns: Sequence[str]) -> pandas.DataFrame:
    """The table in a file, with whole directories. Raises ``ConfigError`` where it is none."""
    text = [column for column in TEXT if column in columns]
    try:
        table = pandas.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
        table = table.reindex(columns=list(columns)).astype(dict.fromkeys(text, object))
        table = table.fillna(dict.fromkeys(text, ""))
        numbers = table.drop(columns=["directory", *text])
        table[numbers.columns] = numbers.apply(pandas.to_numeric)
        table["directory"] = [str(path.parent / directory) for directory in table["directory"]]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({type(error).__name__}): restore or delete it") from None
    return table


def _whole(column: pandas.Series[Any]) -> pandas.Series[Any]:
    """A column of whole numbers as such, if all that are known are."""
    numbers = pandas.api.types.is_numeric_dtype(column) and not (column.dropna() % 1).any()
    return column.astype("Int64") if numbers else column


def _joined(tables: tuple[pandas.DataFrame, pandas.DataFrame]) -> pandas.DataFrame:
    filled = [table for table in tables if not table.empty]
    return pandas.concat(filled, ignore_index=True) if filled else tables[0]
