"""summary.csv, which stands for runs that are gone."""

from __future__ import annotations

from pathlib import Path

import pandas


def tell_tables(results_dir: Path, gone: pandas.DataFrame) -> None:
    """Say so if the tables that stand for runs which are gone have some of these."""
    table = results_dir / "summary.csv"
    if table.is_file():
        kept = [str(results_dir / directory) for directory in pandas.read_csv(table)["directory"]]
        count = int(gone["directory"].isin(kept).sum())
        if count:
            print(
                f"{table} has {count} of them, so figures and pages still do: delete it, and tdc report writes it anew"
            )
