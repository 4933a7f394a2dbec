"""``tdc best``: the smallest network that is about as accurate as dense, or the best that is small enough.

tdc best within=0.5 by=bytes             # the smallest within half a point of dense
tdc best under=1e5 dataset=mnist         # the most accurate with at most 100,000 parameters
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
from rich.console import Console
from rich.table import Table

from ..config.words import choice, from_zero, read
from ..results.answers.best import MEASURES, Answer, Measure, best_under, smallest_within
from ..results.answers.networks import Network, difference, networks
from ..results.drawing.comparison import Comparison, comparisons
from ..results.rows import OF_FILES, as_exported, chosen
from ..results.tables import read_results, warn_of_broken
from ..tensor.errors import ConfigError
from ..tensor.formats import BASELINE
from .shared.filters import Place, filters, with_filters

_WITHIN = 0.5  # percentage points, where nothing is asked
_RIVALS = 4  # beside the nearest one
_OF_ITS_OWN = ("method", "variant", "rank", "lr", "exported", "exported_on")  # which do not choose among dense runs


@dataclass(frozen=True)
class BestOptions(Place):
    """``within``: percentage points that the smallest network may lose against dense, 0.5 unless ``under`` is given.

    ``under``: the largest size that the most accurate network may have. ``by``: what size is.
    """

    within: float | None = from_zero(None)
    under: float | None = None
    by: str = choice("parameters", MEASURES)


def run(words: Sequence[str]) -> None:
    """Print the answer for each group of runs that can be compared. Raises ``ConfigError`` where there is none."""
    options = read(words, with_filters(BestOptions))
    if options.within is not None and options.under is not None:
        raise ConfigError("within=.. asks for the smallest network and under=.. for the best one: give one of them")
    wanted = filters(options)
    runs, _ = read_results(options.results_dir, **{k: v for k, v in wanted.items() if k not in _OF_ITS_OWN})
    warn_of_broken(runs)
    asked = chosen(runs, **wanted)
    if options.under is None:
        dense = runs[(runs["method"] == BASELINE) & ~runs["directory"].isin(asked["directory"])]
        asked = pandas.concat([asked, dense], ignore_index=True) if len(dense) else asked
    answered = [_answered(comparison, options) for comparison in comparisons(asked)]
    if not any(answered):
        like = " like that" if wanted else ""
        raise ConfigError(f"no finished runs{like} in {Path(options.results_dir) / 'runs'} that answer this")


def _answered(comparison: Comparison, options: BestOptions) -> bool:
    """Print what the runs of one comparison answer, behind its title; whether they do."""
    measure = MEASURES[options.by]
    found = networks(as_exported(comparison.runs) if measure.column in OF_FILES else comparison.runs)
    title = ", ".join(comparison.what)
    if options.under is None and all(network.baseline for network in found):
        return False
    try:
        if options.under is not None:
            asked = f"the most accurate with at most {_size(options.under)} {measure.unit}"
            answers = list(best_under(found, measure, options.under))
        else:
            within = _WITHIN if options.within is None else options.within
            asked = f"the fewest {measure.unit} within {within:g} points of {BASELINE}"
            answers = list(smallest_within(found, measure, within))
    except ConfigError as error:
        print(f"{title}: {error}")
        return False
    for answer in answers:
        print(", ".join([f"{title}: {asked}", *answer.alike]))
        _print(answer, measure)
    if not answers:
        how = "; tdc export run=RUN writes them down" if measure.column in OF_FILES else ""
        print(f"{title}: no {measure.unit} known{how}")
    return bool(answers)


def _print(answer: Answer, measure: Measure) -> None:
    """The chosen network, those that come nearest and those that the seeds do not tell from it, and the baseline."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("network", "lr", measure.unit, "test accuracy (seeds)", f"against {BASELINE}", "chosen", "runs"):
        right = title in (measure.unit, "test accuracy (seeds)")
        table.add_column(title, justify="right" if right else "left", no_wrap=True)

    dense = answer.baseline

    def add(network: Network, size: float, chosen: str) -> None:
        gap = ""
        if dense is not None and network is not dense.network:
            against = difference(network.accuracies, dense.network.accuracies)
            gap = f"{against.points:+.2f} points, {against.verdict}"
        folder = str(Path(network.done["directory"].iloc[0]).parent)
        table.add_row(network.label, f"{network.lr:g}", _size(size), _accuracy(network), gap, chosen, folder)

    alike = [one for one in answer.rivals[1:] if one.missed and one.missed.beyond is not True]
    shown = [*answer.rivals[:1], *alike[:_RIVALS]]
    if answer.best is not None:
        add(answer.best.network, answer.best.size, "best")
    for one in shown:
        missed = (
            "too large" if one.missed is None else f"missed by {one.missed.points:.2f} points, {one.missed.verdict}"
        )
        add(one.network, one.size, missed)
    known = [one.network for one in (answer.best, *shown) if one is not None]
    if dense is not None and dense.network not in known:
        add(dense.network, dense.size, "")
    console = Console(soft_wrap=True)
    console.width = 10_000  # a line a network, whatever the terminal
    console.print(table)
    if answer.best is None:
        print("none will do")
    elif dense is not None and answer.best.size > dense.size:
        print(f"{BASELINE} has fewer {measure.unit} than the best")
    if len(alike) > _RIVALS:
        print(f"{len(alike) - _RIVALS} more that the seeds do not tell from these")
    if answer.unknown:
        print(f"{answer.unknown} more without {measure.unit} of that kind")


def _accuracy(network: Network) -> str:
    spread = "" if math.isnan(network.deviation) else f" ± {100 * network.deviation:.2f}"
    counts = [str(len(network.accuracies)), *(f"{count} {status}" for status, count in network.lost.items())]
    return f"{100 * network.mean:.2f}{spread} % ({', '.join(counts)})"


def _size(size: float) -> str:
    if math.isnan(size):
        return "-"
    return f"{size:,.0f}" if size >= 1000 or size == int(size) else f"{size:.3g}"
