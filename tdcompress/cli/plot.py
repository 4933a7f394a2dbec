"""``tdc plot``: the comparison figures.

tdc plot results_dir=results             # all that the runs allow, into results/figures
tdc plot method=tt,cp formats=pdf        # of some of the runs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.words import read
from ..results.figures import plot_all
from .shared.filters import Place, filters, with_filters


@dataclass(frozen=True)
class PlotOptions(Place):
    """``formats``: the kinds of file that each figure is written as."""

    formats: tuple[str, ...] = ("png", "svg")


def run(words: Sequence[str]) -> None:
    """Draw the figures that the chosen runs allow, and print the files. Raises ``ConfigError`` if there are none."""
    options = read(words, with_filters(PlotOptions))
    for path in plot_all(options.results_dir, options.formats, **filters(options)):
        print(path)
