"""``tdc plot``: the comparison figures.

tdc plot results_dir=results             # all that the runs allow, into results/figures
tdc plot method=tt,cp format=pdf        # of some of the runs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.words import choice, read
from ..results.drawing.figures import EXTENSIONS, plot_all
from ..results.drawing.look import Look
from .shared.filters import Place, filters, with_filters


@dataclass(frozen=True)
class PlotOptions(Place):
    """What is drawn, and how; ``figure``: names of figures, none for all."""

    format: tuple[str, ...] = choice(("png", "svg"), EXTENSIONS)  # the kinds of file that each figure is written as
    size: str = "column"  # 3.5 inches wide, page: 7.16, or WIDTHxHEIGHT in inches
    title: str | None = None  # none: without
    caption: bool = True  # what is shown, beneath it
    style: str | None = None  # a file of matplotlib's settings
    order: tuple[str, ...] = ()  # methods, as their lines are to follow one another
    figure: tuple[str, ...] = ()
    x: str | None = None  # a column, to draw another one over
    y: str | None = None  # the column that is drawn over x


def run(words: Sequence[str]) -> None:
    """Draw the figures that the chosen runs allow, and print the files. Raises ``ConfigError`` if there are none."""
    options = read(words, with_filters(PlotOptions))
    look = Look.sized(
        options.size,
        title="" if options.title == "none" else options.title,
        caption=options.caption,
        style=options.style,
        order=options.order,
    )
    for path in plot_all(
        options.results_dir, options.format, look, options.figure, options.x, options.y, **filters(options)
    ):
        print(path)
