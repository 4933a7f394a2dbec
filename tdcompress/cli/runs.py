"""``tdc runs``: the runs there are.

tdc runs method=tt status=finished       # chosen by the columns of their table
tdc runs results_dir=results/published rank=10x,16.6x
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config.words import read
from ..results.rows import read_runs
from .shared.filters import Place, filters, with_filters
from .shared.tables import print_runs


def run(words: Sequence[str]) -> None:
    """Print a line for each run under ``results_dir`` that ``words`` choose. Raises ``ConfigError`` for bad words."""
    options = read(words, with_filters(Place))
    wanted = filters(options)
    table = read_runs(options.results_dir, **wanted)
    if table.empty:
        print(f"no runs in {Path(options.results_dir) / 'runs'}" + (" like that" if wanted else ""))
    else:
        print_runs(table)
