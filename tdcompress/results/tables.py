"""What a repository keeps of runs/: summary.csv, a row a run, and metrics.csv, a row an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas

from ..device.files import write_text
from .record import COUNTS, METRICS
from .rows import COLUMNS, WHOLE, chosen, read_metrics, read_runs

TEXT = (
    *("dataset", "arch", "method", "variant", "rank", "setting", "status", "device", "exported", "exported_on"),
    "dataset_label",
    *("torch", "tdcompress"),
)


def read_results(results_dir: Path | str, **filters: Any) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The runs (columns ``COLUMNS``) and their epochs (directory and ``METRICS``) under ``results_dir``.

    A run is read from its directory where there is one, else from the two tables; so whoever has only the tables, or
    has them and runs of their own, draws the same figures. ``filters`` as in ``read_runs``.
    """
    runs = read_runs(results_dir)
    epochs = read_metrics(runs)[["directory", *METRICS]]
    folder = Path(results_dir)
    if (folder / "summary.csv").is_file() and (folder / "metrics.csv").is_file():
        kept = pandas.read_csv(folder / "summary.csv", dtype=dict.fromkeys(TEXT, str)).reindex(columns=COLUMNS)
        kept = kept.astype(dict.fromkeys(TEXT, object)).fillna(dict.fromkeys(TEXT, ""))
        kept_epochs = pandas.read_csv(folder / "metrics.csv").reindex(columns=["directory", *METRICS])
        for table in (kept, kept_epochs):
            table["directory"] = [str(folder / directory) for directory in table["directory"]]
        kept = kept[~kept["directory"].isin(runs["directory"])]
        kept_epochs = kept_epochs[kept_epochs["directory"].isin(kept["directory"])]
        runs, epochs = (_joined(tables) for tables in ((runs, kept), (epochs, kept_epochs)))
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


def _whole(column: pandas.Series[Any]) -> pandas.Series[Any]:
    """A column of whole numbers as such, if all that are known are."""
    numbers = pandas.api.types.is_numeric_dtype(column) and not (column.dropna() % 1).any()
    return column.astype("Int64") if numbers else column


def _joined(tables: tuple[pandas.DataFrame, pandas.DataFrame]) -> pandas.DataFrame:
    filled = [table for table in tables if not table.empty]
    return pandas.concat(filled, ignore_index=True) if filled else tables[0]
