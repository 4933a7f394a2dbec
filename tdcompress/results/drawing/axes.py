"""What axes of different figures have in common: ticks where runs are, and labels beside the lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from .quantities import Quantity

_NEAR = 1.15  # values this close, as those that one budget leads to, are one tick
_APART = 0.34  # inches: what two ticks need to be written side by side
_LETTERS = 13  # of an axis' title, an inch
_LINE = 1.25  # of the size of type
Entry = tuple[str, dict[str, Any], float]  # a label, its style, and how high its line ends; inf and -inf: top, bottom


def run_ticks(values: Iterable[float], exact: bool = False) -> list[float]:
    """A tick for each of ``values`` > 0, one for those that are near; two digits, or ``exact`` as the first of them."""
    groups: list[list[float]] = []
    for value in sorted(values):
        if groups and value <= groups[-1][-1] * _NEAR:
            groups[-1].append(value)
        else:
            groups.append([value])
    centres = [math.exp(sum(map(math.log, group)) / len(group)) for group in groups]
    return [group[0] for group in groups] if exact else [float(f"{centre:.2g}") for centre in centres]


def set_scale(axis: Any, quantity: Quantity, values: Sequence[float] | None = None) -> None:
    """The scale of the x axis of ``quantity``, its title, and ticks at the ``values`` that were run.

    Without them, and for quantities that are measured, not chosen, ticks are at round numbers.
    """
    inches = axis.get_window_extent().width / axis.figure.dpi
    letters = max(12, int(_LETTERS * inches))
    fits = len(quantity.label) <= letters
    axis.set_xlabel(quantity.label if fits else textwrap.fill(quantity.title, letters) + "\n(log scale)" * quantity.log)
    if not quantity.log:
        axis.xaxis.set_major_formatter(quantity.form)
        return
    axis.set_xscale("log")
    axis.margins(x=0.06)
    low, high = map(math.log, axis.get_xlim())
    if values is None or quantity.alike:
        decade = inches / ((high - low) / math.log(10))
        subs = (1, 2, 3, 4, 5, 6, 8) if decade > 10 * _APART else (1, 2, 5) if decade > 3 * _APART else (1,)
        axis.xaxis.set_major_locator(LogLocator(subs=subs))
    else:
        axis.xaxis.set_major_locator(FixedLocator(_written(values, quantity, _APART / inches * (high - low))))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(quantity.form)


def _written(values: Sequence[float], quantity: Quantity, apart: float) -> list[float]:
    """The ticks at ``values`` that can be written side by side, at least ``apart`` in logarithm."""
    ticks: list[float] = []
    for tick in run_ticks(values, exact=quantity.column == "lr"):
        if not ticks or math.log(tick / ticks[-1]) >= apart:
            ticks.append(tick)
    return ticks


def labels_beside(
    figure: Figure, axis: Any, entries: Sequence[Entry], fixed: bool, led: bool = False, panels: int = 1
) -> None:
    """Write each label at the right of the axes, as near as may be to where its line ends; axis limits are set.

    The figure grows if they need it, unless its height is ``fixed``. ``led``: with a thin line from each line's end.
    ``panels``: how many axes stand one below the other, of which ``axis`` is the highest.
    """
    size = matplotlib.rcParams["font.size"] * 0.88
    letters = max(14, int(5 * figure.get_figwidth()))
    names = [textwrap.fill(label, letters) for label, _, _ in entries]
    heights = [size * _LINE * (1 + name.count("\n")) for name in names]
    room = 72 * figure.get_figheight() - 40  # points of the axes' height: without ticks and the axis' title
    if sum(heights) > room and not fixed:
        figure.set_figheight(figure.get_figheight() + (sum(heights) - room) / 72)
        room = sum(heights)
    low, high = axis.get_ylim()
    wanted = [min(1.0, max(0.0, (end - low) / (high - low))) for _, _, end in entries]
    places = spread(wanted, [panels * height / room for height in heights], 1.0 - panels)
    across, step = axis.get_yaxis_transform(), 0.09 * axis.figure.dpi / axis.get_window_extent().width
    for name, place, (_, style, end) in zip(names, places, entries, strict=True):
        beside = {"transform": axis.transAxes, "clip_on": False}
        axis.plot([1 + step, 1 + 3 * step], [place] * 2, **beside, **{**style, "marker": ""})
        axis.plot([1 + 2 * step], [place], **beside, **{**style, "ls": ""})
        at = (1 + 3.6 * step, place)
        axis.annotate(name, at, xycoords="axes fraction", va="center", fontsize=size, annotation_clip=False)
        if led and low <= end <= high:
            ends = [end, low + place * (high - low)]
            axis.plot([1, 1 + step], ends, transform=across, clip_on=False, lw=0.5, color=style["color"])


def spread(wanted: Sequence[float], heights: Sequence[float], floor: float = 0.0) -> list[float]:
    """Places for labels of these ``heights`` that do not overlap, near those ``wanted``, from ``floor`` to 1.

    Labels that meet share the place that serves them best together (pool adjacent violators). Where they do not all
    fit, the lowest lie below the floor.
    """
    order = sorted(range(len(wanted)), key=lambda one: wanted[one])
    blocks: list[tuple[float, list[int]]] = []  # the lowest point, the labels from below
    for one in order:
        bottom, members = wanted[one] - heights[one] / 2, [one]
        while blocks and blocks[-1][0] + sum(heights[below] for below in blocks[-1][1]) > bottom:
            lower, below = blocks.pop()
            bottom -= sum(heights[each] for each in below)
            bottom = (len(below) * lower + len(members) * bottom) / (len(below) + len(members))
            members = below + members
        blocks.append((bottom, members))
    bottoms = {}
    for bottom, members in blocks:
        for one in members:
            bottoms[one] = floor = max(bottom, floor)
            floor += heights[one]
            bottom += heights[one]
    ceiling = 1.0
    for one in reversed(order):
        ceiling = bottoms[one] = min(bottoms[one], ceiling - heights[one])
    return [bottoms[one] + heights[one] / 2 for one in range(len(wanted))]
