"""``tdc runs``: the runs there are, and what can be done with them.

tdc runs method=tt status=finished                # chosen by the columns of their table
tdc runs results_dir=results/published rank=10x,16.6x
tdc runs delete method=tt status=broken           # lists them and asks; yes=true does not ask
tdc runs move method=tt to=RESULTS_DIR            # they go on there
tdc runs diff RUN RUN                             # the keys that differ, and both curves in one figure
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config.words import read
from ..results.tables import read_results
from .kept import delete, diff, move
from .shared.filters import Place, filters, with_filters
from .shared.tables import print_runs

_DO = {"delete": delete.run, "move": move.run, "diff": diff.run}


def run(words: Sequence[str]) -> None:
    """Print a line for each run under ``results_dir`` that ``words`` choose, or do what the first word says.

    Runs whose folders are gone are those of the tables there, as in figures. Raises ``ConfigError`` for bad words.
    """
    if words and words[0] in _DO:
        _DO[words[0]](words[1:])
        return
    options = read(words, with_filters(Place))
    wanted = filters(options)
    table, _ = read_results(options.results_dir, **wanted)
    if table.empty:
        print(f"no runs in {Path(options.results_dir) / 'runs'}" + (" like that" if wanted else ""))
    else:
        print_runs(table)
        gone = sum(not Path(directory).is_dir() for directory in table["directory"])
        if gone:
            print(f"{gone} of {len(table)} are known from {Path(options.results_dir) / 'summary.csv'} alone")
