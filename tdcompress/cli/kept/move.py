"""``tdc runs move``: the folders of chosen runs, to other results."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config.words import read
from ...device.files import RunError
from ...results.folders import move
from ...results.rows import chosen, read_runs
from ...tensor.errors import ConfigError
from ..shared.filters import Place, filters, with_filters
from ..shared.say import complain
from .starts import starts_without_runs
from .tables import tell_tables


@dataclass(frozen=True)
class MoveOptions(Place):
    """``to``: the folder above the runs/ where they are to lie."""

    to: str | None = None


def run(words: Sequence[str]) -> None:
    """Move the runs that ``words`` choose, and the shared dense epochs that only they begin with; print their places.

    Nothing is moved where something lies in the place of one of them. A run that a process works on is left. Raises
    ``ConfigError`` for words that choose nothing, without ``to``, and where something is in the way.
    """
    options = read(words, with_filters(MoveOptions))
    wanted, results_dir = filters(options), Path(options.results_dir)
    if options.to is None or not wanted:
        raise ConfigError(
            "tdc runs move needs words that choose runs and a place: tdc runs move method=tt to=RESULTS_DIR"
        )
    to = Path(options.to)
    if to.resolve() == results_dir.resolve():
        raise ConfigError(f"to={to} is where these runs are")
    runs = read_runs(results_dir)
    asked = chosen(runs, **wanted)
    if asked.empty:
        print(f"no runs in {results_dir / 'runs'} like that")
        return
    for directory in asked.loc[asked["status"] == "running", "directory"]:
        print(f"{directory} is left: a process works on it")
    asked = asked[asked["status"] != "running"]
    if asked.empty:
        return
    left = runs[~runs["directory"].isin(asked["directory"])]
    before = starts_without_runs(results_dir, runs)  # which nobody began with
    starts = [one for one in starts_without_runs(results_dir, left) if one not in before]
    folders = [*map(Path, asked["directory"]), *starts]
    places = [to / folder.relative_to(results_dir) for folder in folders]
    taken = [place for place in places if os.path.lexists(place)]
    if taken:
        more = f" and {len(taken) - 1} more" * (len(taken) > 1)
        raise RunError(f"{taken[0]}{more}: there already, nothing is overwritten, and nothing was moved")
    moved = []
    for folder in folders:
        try:
            print(move(folder, results_dir, to))
            moved.append(str(folder))
        except ConfigError as error:
            complain(error)
    tell_tables(results_dir, asked[asked["directory"].isin(moved)])
    print(f"{len(moved)} of {len(folders)} folders moved; their commands go on there with results_dir={to}")
    if len(moved) < len(folders):
        sys.exit(1)
