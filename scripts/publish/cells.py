"""Tables of the pages, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

NONE = "–"  # noqa: RUF001 (what is not known, or not run yet)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, a row a line, of the columns in which something is known."""
    if not rows:
        return "Not run yet.\n"
    kept = [place for place in range(len(head)) if any(row[place] != NONE for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line[place] for place in kept)} |\n" for line in lines)


def accuracy(runs: pandas.DataFrame) -> str:
    """Per cent after the last epoch: mean, standard deviation and number of seeds."""
    values = 100 * runs["test_accuracy"]
    if not len(values):
        return NONE
    one = len(values) == 1
    digits = 1 if values.mean() < 97 and (one or values.std() >= 0.05) else 2
    spread = "" if one else f" ± {values.std():.{digits}f}"
    return f"{values.mean():.{digits}f}{spread} ({len(values)})"


def first(rows: pandas.DataFrame, column: str, form: str) -> str:
    """A value of the first row."""
    return form.format(rows[column].iloc[0]) if len(rows) and pandas.notna(rows[column].iloc[0]) else NONE


def speed(rows: pandas.DataFrame, column: str = "speedup") -> str:
    """Of the first row a median of rounds, and the quartiles around it where they were written down."""
    columns = [column, f"{column}_low", f"{column}_high"]
    told, *ends = (first(rows.reindex(columns=columns), one, "{:.2f}") for one in columns)
    return told if NONE in ends else f"{told} ({' to '.join(ends)})"
