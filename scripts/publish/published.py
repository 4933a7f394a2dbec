"""A folder of results as the tables of the pages ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas

from tdcompress.results.tables import read_results
from tdcompress.tensor.formats import BASELINE


class Published:
    """The tables of a folder of results: runs, which of them belong to which part of the protocol, and times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known = (folder / "summary.csv").is_file()
        self.runs, self.epochs = read_results(folder) if known else (pandas.DataFrame(), pandas.DataFrame())
        self.parts = self._table("parts.csv", ("part", "directory"))

    def finished(self, *parts: str) -> pandas.DataFrame:
        """The finished runs of these parts."""
        mine = self.parts.loc[self.parts["part"].isin(parts), "directory"]
        if not len(self.runs):
            return pandas.DataFrame(columns=["directory", "method", "rank", "seed", "test_accuracy"])
        known = self.runs["directory"].isin([str(self.folder / directory) for directory in mine])
        return self.runs[known & (self.runs["status"] == "finished")]

    def of(self, part: str, method: str, rank: str | None = None) -> pandas.DataFrame:
        """The finished runs of a part by a method, at a rank, one a seed; of the baseline those at any.

        Raises ``ValueError`` where that does not say which: they differ in more than the seed.
        """
        found = self.finished(part)
        found = found[found["method"] == method]
        if rank is not None and method != BASELINE:
            found = found[found["rank"] == rank]
        if found["seed"].duplicated().any():
            raise ValueError(f"part {part}: {method} at rank {rank} are several runs of a seed")
        return found

    def seconds(self, part: str, method: str) -> float:
        """Of an epoch, mean over a training of three equal thirds: full rank, ranks that are cut, and the last ones.

        Those at full rank are the baseline's, which computes the same: another run's clock would make a difference.
        """
        epochs, dense = (
            self.epochs[self.epochs["directory"].isin(self.of(part, one)["directory"])] for one in (method, BASELINE)
        )
        size, full = epochs["parameters"], dense["train_seconds"].mean()
        phases = epochs[size < size.max()].groupby(size == size.min())["train_seconds"].mean()
        return float((full + phases.sum()) / (1 + len(phases)))

    def times(self, tables: Sequence[str], method: str | None, **where: object) -> pandas.DataFrame:
        """The rows of tables of times by a method, or by all; ``where``: a column's value, or all that it may be."""
        rows = pandas.concat([self._table(f"bench/{name}.csv", ("method", "layout", *where)) for name in tables])
        known = rows["method"].isin([method] if method is not None else rows["method"])
        for column, value in where.items():
            known &= rows[column].isin(value if isinstance(value, tuple) else (value,))
        return rows[known]

    def _table(self, name: str, columns: Sequence[str]) -> pandas.DataFrame:
        path = self.folder / name
        return pandas.read_csv(path) if path.is_file() else pandas.DataFrame(columns=list(columns))
