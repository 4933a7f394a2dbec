"""The rows of a benchmark as a CSV file and as a table that a person reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..device.files import write_text

Row = Mapping[str, Any]


def write(rows: Sequence[Row], results_dir: str | Path, name: str) -> Path:
    """Write ``<results_dir>/bench/<name>.csv``, whole or not at all; a value that a row lacks stays empty."""
    path, text = Path(results_dir) / "bench" / f"{name}.csv", io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows([{key: _written(value) for key, value in row.items()} for row in rows])
    write_text(path, text.getvalue())
    return path


def show(rows: Sequence[Row], columns: Sequence[str], title: str) -> None:
    """Print ``columns`` of the rows, numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        number = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if number else "left", no_wrap=number)
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    console = Console()
    console.width = max(console.width, 190)
    console.print(f"[italic]{title}[/italic]", highlight=False)  # as a title of the table it would wrap to its width
    console.print(table)


def _written(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
