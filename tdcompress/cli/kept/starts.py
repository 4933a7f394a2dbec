"""Shared dense epochs, and the runs that begin with them."""

from __future__ import annotations

from pathlib import Path

import pandas

from ...results.record import read_summary
from ...results.run import held
from ...train.full_rank.shared import unneeded


def starts_without_runs(results_dir: Path, runs: pandas.DataFrame) -> list[Path]:
    """The shared dense epochs under ``results_dir`` with which none of ``runs`` begins, and which no process trains."""
    summaries = [read_summary(Path(directory)) for directory in runs["directory"]]
    configs = [summary.config for summary in summaries if summary is not None and summary.config]
    return [directory for directory in unneeded(results_dir, configs) if held(directory) is False]
