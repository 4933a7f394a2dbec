"""``tdc plot``: the comparison figures.

tdc plot results_dir=results                         # all that the runs allow, into results/figures
tdc plot x=macs y=test_accuracy size=page format=pdf # one column over another, over both columns of a paper
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config.words import choice, read
from ..results.drawing.figures import EXTENSIONS, plot_all
from ..results.drawing.look import Look
from .shared.filters import Place, filters, with_filters

_NAMED = 3  # of the figures that were not drawn


@dataclass(frozen=True)
class PlotOptions(Place):
    """What is drawn, and how."""

    format: tuple[str, ...] = choice(("png", "svg"), EXTENSIONS)  # the kinds of file that each figure is written as
    size: str = "column"  # 3.5 inches wide, page: 7.16, or WIDTHxHEIGHT in inches
    title: str | None = None  # above each figure; none: nothing
    caption: bool = True  # what is shown, beneath it
    style: str | None = None  # a file of matplotlib's settings (.mplstyle)
    order: tuple[str, ...] = ()  # methods, as their lines are to follow one another
    figure: tuple[str, ...] = ()  # names of figures, as their files have them; none: all
    x: str | None = None  # a column of runs or epochs: draw y over it, in place of all other figures
    y: str | None = None  # a column too; none: test_accuracy
    out: str | None = None  # the folder to draw into; none: results_dir/figures


def run(words: Sequence[str]) -> None:
    """Draw the figures that the chosen runs allow, and print the files; then name others in their folder.

    Those may be of runs or settings of before. Raises ``ConfigError`` if there are none to draw.
    """
    options = read(words, with_filters(PlotOptions))
    look = Look.sized(
        options.size,
        title="" if options.title == "none" else options.title,
        caption=options.caption,
        style=options.style,
        order=options.order,
    )
    asked: dict[str, Any] = {
        "figures": options.figure,
        "x": options.x,
        "y": options.y,
        "out": options.out,
        **filters(options),
    }
    written = plot_all(options.results_dir, options.format, look, **asked)
    for path in written:
        print(path)
    there = {path.stem for kind in EXTENSIONS for path in written[0].parent.glob(f"*.{kind}")}
    beside = sorted(there - {path.stem for path in written})
    if beside and not (options.out or options.figure or options.x or options.y or filters(options)):
        names = ", ".join(beside[:_NAMED]) + (", .." if len(beside) > _NAMED else "")
        print(f"not drawn now, and perhaps of other runs, of the figures there: {names}")
