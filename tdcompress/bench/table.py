"""The rows of a benchmark as a CSV file."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..device.clock import quartiles
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


def spread(name: str, rounds: Sequence[float]) -> Row:
    """What a row says of a quantity that was measured in rounds: the median, and below other names the quartiles.

    Of a single round there are no quartiles, of none nothing.
    """
    low, high = quartiles(rounds) if len(rounds) > 1 else (None, None)
    return {name: statistics.median(rounds) if rounds else None, f"{name}_low": low, f"{name}_high": high}


def _written(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
