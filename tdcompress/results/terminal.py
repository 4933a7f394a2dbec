"""Rows as a table that a person reads in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str) -> None:
    """Print ``columns`` of the rows, numbers to the right; a value that a row lacks is a dash.

    Behind a value whose quartiles a row has, in ``<column>_low`` and ``<column>_high``, they stand in brackets.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        number = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if number else "left", no_wrap=number)
    for row in rows:
        table.add_row(*(_cell(row, column) for column in columns))
    console = Console()
    console.width = max(console.width, 190)
    console.print(f"[italic]{title}[/italic]", highlight=False)  # as a title of the table it would wrap to its width
    console.print(table)


def _cell(row: Mapping[str, Any], column: str) -> str:
    value, low, high = (row.get(name) for name in (column, f"{column}_low", f"{column}_high"))
    return _shown(value) if low is None else f"{_shown(value)} ({_shown(low)} to {_shown(high)})"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
