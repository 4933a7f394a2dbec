"""Tables of runs and of their epochs, read from the runs' directories."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas

from ..tensor.errors import ConfigError
from ..tensor.rank import Budget, parse
from .identity import choices
from .record import METRICS, Epoch, Summary, cells, read_metrics_text, read_summary
from .run import held, kind_of


@dataclass(frozen=True)
class Row:
    """One run in a table of runs; None is what is not known of it."""

    dataset: str | None
    arch: str | None
    method: str | None
    variant: str  # the other choices of the method, as key=value words
    rank: str  # empty where no layer has one
    seed: int | None
    status: str
    epochs_done: int | None = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    setting: str = ""  # the other choices of everything else
    parameters: int | None = None
    dense_parameters: int | None = None
    compression_ratio: float | None = None
    macs: int | None = None
    dense_macs: int | None = None
    test_accuracy: float | None = None
    best_epoch: int | None = None
    best_validation_accuracy: float | None = None
    best_test_accuracy: float | None = None
    train_seconds_per_epoch: float | None = None
    device: str | None = None
    exported: str = ""  # the kind of an exported file
    exported_bytes: int | None = None
    exported_ms: float | None = None  # of one image
    exported_ms_64: float | None = None  # of 64 at once
    exported_on: str = ""  # the device that took these
    dataset_label: str = ""  # what the data are called, where their owner says so
    torch: str | None = None
    tdcompress: str | None = None
    directory: str = ""


COLUMNS = tuple(column.name for column in fields(Row))
WHOLE = tuple(column.name for column in fields(Row) if str(column.type).startswith("int"))  # columns of whole numbers
_values = attrgetter(*COLUMNS)
_OF_SUMMARY = [name for name in COLUMNS if name in {column.name for column in fields(Summary)}]


AGREE = {
    **dict.fromkeys(("exported_ms", "exported_ms_64"), ("exported", "exported_on")),
    **dict.fromkeys(("train_seconds_per_epoch", "train_seconds", "test_seconds"), ("device",)),
    **dict.fromkeys(("images_per_second", "peak_memory_mb"), ("device",)),
    "exported_bytes": ("exported",),
}
"""In which columns runs must agree to be compared by this one: times are of a machine, files of a format."""
OF_FILES = ("exported_bytes", "exported_ms", "exported_ms_64")
"""The columns that tell of an exported file."""


def read_runs(results_dir: Path | str, **filters: Any) -> pandas.DataFrame:
    """One row a run under ``results_dir``/runs, the columns ``COLUMNS``; ``filters``: column=value or [values].

    ``status`` is finished, diverged, running (a process holds its lock, or who reads may not see whether one does),
    interrupted (none does), or broken (its summary is missing or unreadable; only what the path says is then known).
    Quantities are those of summary.json; of several exported files those of the kind that most runs of the data set and
    the network have, the newest of equals, because only files of one kind can be compared. A filter on a column of
    numbers compares numbers: lr="1e-2" finds 0.01.
    """
    found = sorted(Path(results_dir).glob("runs/*/*/*/seed*"))
    known = [(directory, read_summary(directory)) for directory in found]
    files = [
        [] if summary is None else [one for one in summary.exports if isinstance(one, dict)] for _, summary in known
    ]
    common = Counter(
        (summary.dataset, summary.arch, kind)
        for (_, summary), exports in zip(known, files, strict=True)
        if summary is not None
        for kind in {kind_of(one) for one in exports}
    )
    rows = [
        _row(directory, summary, _most_common(exports, summary, common))
        for (directory, summary), exports in zip(known, files, strict=True)
    ]
    return chosen(_seeds_together(pandas.DataFrame(map(_values, rows), columns=list(COLUMNS))), **filters)


def _seeds_together(runs: pandas.DataFrame) -> pandas.DataFrame:
    """The same, where runs that each start from the seed of another network that is their own have one setting."""
    own = [
        setting if seed != seed else re.sub(rf"((?:^| )init_from=\S*/seed){seed:.0f}(?= |$)", r"\1${seed}", setting)
        for setting, seed in zip(runs["setting"], runs["seed"].astype(float), strict=True)
    ]
    starts = runs["setting"].groupby(own).transform("nunique") if len(runs) else runs["seed"]
    return runs.assign(setting=runs["setting"].where(starts < 2, own))


def chosen(runs: pandas.DataFrame, **filters: Any) -> pandas.DataFrame:
    """The rows where every column=value or [values] of ``filters`` holds. Raises ``ConfigError`` for other columns."""
    unknown = sorted(set(filters) - set(COLUMNS))
    if unknown:
        raise ConfigError(
            f"unknown key '{unknown[0]}', known: results_dir, and to choose among the runs {', '.join(COLUMNS)}"
        )
    for column, wanted in filters.items():
        values = list(wanted) if isinstance(wanted, (list, tuple, set)) else [wanted]
        if pandas.api.types.is_numeric_dtype(runs[column]):
            odd = [value for value in values if not _is_number(value)]
            if odd:
                raise ConfigError(f"{column}={odd[0]} is not a number, as all of that column are")
            values = [float(value) for value in values]
        runs = runs[runs[column].isin(values)]
    return runs.reset_index(drop=True)


def as_exported(runs: pandas.DataFrame) -> pandas.DataFrame:
    """The same with the test accuracy of what an exported file holds: the epoch that was best by validation, if any."""
    best = runs["best_test_accuracy"].where(runs["best_epoch"].notna(), runs["test_accuracy"])
    return runs.assign(test_accuracy=best)


def _without_place(config: dict[str, Any], results_dir: Path) -> dict[str, Any]:
    """The configuration with the run that it starts from named from beside ``results_dir``, wherever that lies."""
    if not config.get("init_from"):
        return config
    folder, start = results_dir.resolve(), Path(str(config["init_from"])).resolve()
    if not start.is_relative_to(folder):
        return config
    return config | {"init_from": Path(folder.name, start.relative_to(folder)).as_posix()}


def read_metrics(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Every epoch of every run of ``read_runs``: the run's columns, then those of metrics.csv (``METRICS``).

    ``test_accuracy``, ``parameters`` and ``macs`` are the epoch's. A column that a file lacks is nan. Runs without an
    epoch have no row; a file that is no table of epochs is left out with a warning.
    """
    values: list[tuple[Any, ...]] = []
    owners: list[int] = []
    for position, directory in enumerate(runs["directory"]):
        found = _epochs(Path(directory))
        values += map(cells, found)
        owners += [position] * len(found)
    # One table for all files: a parse by pandas would cost a millisecond a file.
    metrics = pandas.DataFrame(values, columns=list(METRICS), dtype=float)
    kept = runs.drop(columns=[column for column in METRICS if column in runs]).iloc[owners].reset_index(drop=True)
    return pandas.concat([kept, metrics.astype({"epoch": int})], axis=1)


def _epochs(directory: Path) -> list[Epoch]:
    path = directory / "metrics.csv"
    try:
        return read_metrics_text(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        warnings.warn(f"{path} is damaged and left out; tdc train writes it again", stacklevel=3)
        return []


def _row(directory: Path, summary: Summary | None, export: dict[str, Any]) -> Row:
    """The row of a run; ``export``: which of its exported files it tells of."""
    said = None if summary is None else _said(summary, directory)
    dataset, arch, name, seed = directory.parts[-4:]
    number = int(seed[4:]) if seed[4:].lstrip("-").isdigit() else None
    place: dict[str, Any] = {"dataset": dataset, "arch": arch, "method": name.split("-")[0], "seed": number}
    if summary is None or said is None:
        status = "running" if held(directory) else "broken"
        return Row(**place, variant="", rank="", status=status, directory=str(directory))
    config, variant, setting = said
    known: dict[str, Any] = {name: getattr(summary, name) for name in _OF_SUMMARY}
    known |= {"rank": summary.rank or "", "device": summary.device or ""}  # grouping would drop rows that have none
    known |= {name: value for name, value in place.items() if known[name] is None}
    if summary.status == "running" and held(directory) is False:
        known["status"] = "interrupted"
    return Row(
        **known,
        variant=variant,
        setting=setting,
        **_exported(export),
        dataset_label=_values_of([config.get("dataset")]).get("label") or "",
        lr=_number(config.get("lr")),
        batch_size=_number(config.get("batch_size")),
        torch=summary.versions.get("torch"),
        tdcompress=summary.versions.get("tdcompress"),
        directory=str(directory),
    )


def _said(summary: Summary, directory: Path) -> tuple[dict[str, Any], str, str] | None:
    """The configuration, the choices of the method and all others; None where it is no configuration."""
    config = _without_place(summary.config, directory.parents[4])
    try:
        variant, setting = choices(config) if config else ("", "")
    except (ConfigError, AttributeError, LookupError, TypeError, ValueError):  # edited by hand
        return None
    return config, variant, setting


def _number(value: Any) -> Any:
    """A number as it is, None for all else."""
    return value if isinstance(value, (int, float)) else None


def _values_of(found: list[Any]) -> dict[str, Any]:
    """The values by name in a list of one, whatever else it may hold."""
    return next((one for one in found if isinstance(one, dict)), {})


def adaptive(rank: str) -> bool:
    """Whether a rank, as a table has it, is cut while training."""
    try:
        asked = parse(rank)
    except ConfigError:  # of a dense network, or a damaged summary
        return False
    return isinstance(asked, Budget) and asked.adaptive


def natural(rank: str) -> tuple[float, str]:
    """A key that sorts 2x before 10x."""
    digits = re.search(r"[0-9]+(\.[0-9]+)?", rank)
    return (float(digits[0]) if digits else 0.0, rank)


def _most_common(
    exports: list[dict[str, Any]], summary: Summary | None, common: Mapping[tuple[Any, ...], int]
) -> dict[str, Any]:
    """Of a run's files that of the kind that most runs of its data set and network have; the newest of equals."""
    if summary is None:
        return {}
    where = summary.dataset, summary.arch
    return max(exports[::-1], key=lambda one: common[(*where, kind_of(one))], default={})


def _exported(export: dict[str, Any]) -> dict[str, Any]:
    """What a row says of an exported file."""
    times = _values_of([export.get("ms")])
    return {
        "exported": kind_of(export),
        "exported_bytes": _number(export.get("bytes")),
        "exported_ms": _number(times.get("1")),
        "exported_ms_64": _number(times.get("64")),
        "exported_on": export.get("device", ""),
    }


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
