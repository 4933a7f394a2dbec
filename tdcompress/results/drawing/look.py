"""How figures look: their size, their type, and each format's colour and marker, the same in all figures."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...tensor import formats
from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE

COLUMN, PAGE = 3.5, 7.16  # inches: the width of a column, and of the text, in two columns on a US letter page
INK = "#222222"  # text, axes and the baseline

# Okabe and Ito (2008) and two more, told apart with any kind of colour vision.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#6B4A00", "#5D3A9B")
MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p")
DASHES = ("-", "--", ":", "-.")
FILLS = ("full", "none", "left", "top")  # of markers
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#999999",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "svg.hashsalt": "tdcompress",
    "pdf.fonttype": 42,  # whole letters, not pictures of them: journals ask for embedded fonts of type 42
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Look:
    """What one may choose of a figure. ``height``: inches, None for what it needs; ``style``: a file of matplotlib's.

    ``title``: None for the figure's own, empty for none; ``caption``: whether it says beneath what it shows; ``order``:
    methods, as their lines are to follow one another.
    """

    width: float = COLUMN
    height: float | None = None
    style: str | None = None
    title: str | None = None
    caption: bool = True
    order: tuple[str, ...] = ()

    @staticmethod
    def sized(size: str, **values: Any) -> Look:
        """The look of a ``size``: column, page, or WIDTHxHEIGHT in inches. Raises ``ConfigError`` for another one."""
        widths = {"column": COLUMN, "page": PAGE}
        if size in widths:
            return Look(widths[size], **values)
        numbers = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", size)
        if numbers is None or not all(1 <= float(number) <= 40 for number in numbers.groups()):
            raise ConfigError(f"size={size} is none of column, page, and a width and a height in inches, such as 5.5x3")
        return Look(float(numbers[1]), float(numbers[2]), **values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Matplotlib with these settings. Raises ``ConfigError`` for a ``style`` that cannot be read."""
        own: dict[Any, Any] = {}
        if self.style is not None:
            try:
                own = dict(
                    matplotlib.rc_params_from_file(Path(self.style), fail_on_error=True, use_default_template=False)
                )
            except (OSError, ValueError, KeyError, AttributeError) as error:
                why = getattr(error, "strerror", None) or error
                raise ConfigError(f"style={self.style} is no style file of matplotlib's: {why}") from None
        with matplotlib.rc_context({**STYLE, **own}):
            yield

    def figure(self, height: float, columns: int = 1, rows: int = 1, **share: Any) -> tuple[Figure, Any]:
        """An empty figure, ``height`` inches high unless another height is chosen, and its axes in a table."""
        figure = Figure(figsize=(self.width, self.height or height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False, **share)

    def lines(self, table: pandas.DataFrame) -> list[tuple[str, dict[str, Any], pandas.DataFrame]]:
        """Label, style and rows of each line of ``table`` (columns method and label), in their order.

        The baseline comes first, where no other order was chosen. Of the lines of one colour the first has the filled
        markers and the whole line, the next ones have others.
        """
        groups = sorted(table.groupby(["method", "label"], sort=False), key=lambda line: self._place(line[0][0]))
        drawn: dict[str, int] = {}
        found = []
        for (method, label), rows in groups:
            style = method_style(method)
            before = drawn.get(style["color"], 0)
            drawn[style["color"]] = before + 1
            own = {"ls": DASHES[before % len(DASHES)], "fillstyle": FILLS[before % len(FILLS)]}
            found.append((label, {**style, **own}, rows))
        return found

    def _place(self, method: str) -> tuple[int, bool, str]:
        asked = self.order.index(method) if method in self.order else len(self.order)
        return asked, method != BASELINE, method


def method_style(name: str) -> dict[str, Any]:
    """Colour and marker of a method: those of its first format, by its place among all, so the same everywhere."""
    first = name.split("+")[0]
    if first == BASELINE:
        return {"color": INK, "marker": "*"}
    known = known_formats()
    place = known.index(first) if first in known else len(known)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def known_formats() -> Sequence[str]:
    """Every format but the baseline."""
    return sorted(module.name for module in pkgutil.iter_modules(formats.__path__) if module.name != BASELINE)
