"""``tdc runs``: the runs there are; ``tdc runs delete|move|diff``: what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config.words import read
from ..results.rows import read_runs
from .kept import delete, move
from .shared.filters import Place, filters, with_filters
from .shared.tables import print_runs

_DO = {"delete": delete.run, "move": move.run}


def run(words: Sequence[str]) -> None:
    """Print a line for each run under ``results_dir`` that ``words`` choose, or do what the first word says.

    Raises ``ConfigError`` for bad words.
    """
    if words and words[0] in _DO:
        _DO[words[0]](words[1:])
        return
    options = read(words, with_filters(Place))
    wanted = filters(options)
    table = read_runs(options.results_dir, **wanted)
    if table.empty:
        print(f"no runs in {Path(options.results_dir) / 'runs'}" + (" like that" if wanted else ""))
    else:
        print_runs(table)
