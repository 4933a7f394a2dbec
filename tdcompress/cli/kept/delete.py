"""``tdc runs delete``: the folders of chosen runs, and shared dense epochs that no run is left for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config.words import read
from ...results.folders import bytes_of, delete
from ...results.rows import chosen, read_runs
from ...tensor.errors import ConfigError
from ..shared.filters import Place, filters, with_filters
from ..shared.say import complain
from ..shared.tables import print_runs
from .starts import starts_without_runs
from .tables import tell_tables


@dataclass(frozen=True)
class DeleteOptions(Place):
    """``yes``: delete without asking. ``starts``: also shared dense epochs with which no other run begins."""

    yes: bool = False
    starts: bool = True


def run(words: Sequence[str]) -> None:
    """List the runs that ``words`` choose, ask, and delete them; a run that a process works on is left.

    Raises ``ConfigError`` for words that choose nothing, and where there is no terminal to ask at and no ``yes=true``.
    """
    options = read(words, with_filters(DeleteOptions))
    wanted, results_dir = filters(options), Path(options.results_dir)
    if not wanted:
        raise ConfigError("tdc runs delete needs to be told which runs, as in: tdc runs delete status=broken")
    runs = read_runs(results_dir)
    asked = chosen(runs, **wanted)
    busy = asked[asked["status"] == "running"]
    doomed = asked[asked["status"] != "running"]
    left = runs[~runs["directory"].isin(doomed["directory"])]
    starts = starts_without_runs(results_dir, left) if options.starts else []
    for directory in busy["directory"]:
        print(f"{directory} is left: a process works on it")
    if doomed.empty and not starts:
        print(f"no runs in {results_dir / 'runs'} like that")
        return
    if len(doomed):
        print_runs(doomed)
    for start in starts:
        print(f"{start}: shared dense epochs that no other run begins with (starts=false keeps them)")
    folders = [*map(Path, doomed["directory"]), *starts]
    size = sum(map(bytes_of, folders)) / 1e6
    what = " and ".join(filter(None, (_counted(len(doomed), "run"), _counted(len(starts), "shared start"))))
    if not (options.yes or _agreed(f"delete {what}, {size:,.1f} MB?")):
        print("nothing deleted")
        return
    deleted = []
    for folder in folders:
        try:
            delete(folder, results_dir)
            deleted.append(str(folder))
        except ConfigError as error:
            complain(error)
    print(f"{len(deleted)} of {len(folders)} folders deleted")
    tell_tables(results_dir, doomed[doomed["directory"].isin(deleted)])
    if len(deleted) < len(folders):
        sys.exit(1)


def _agreed(question: str) -> bool:
    """Whether who sits at the terminal says yes. Raises ``ConfigError`` where nobody does."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} there is no terminal to ask at: say yes=true")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}" if count else ""
