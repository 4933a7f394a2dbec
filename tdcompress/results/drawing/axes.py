"""What axes of different figures have in common: ticks where runs are, and labels beside the lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

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
    letters, label = (
        max(12, int(_LETTERS * inches)),
        f"{quantity.label} (log scale)" if quantity.log else quantity.label,
    )
    axis.set_xlabel(
        label if len(label) <= letters else textwrap.fill(quantity.label, letters) + "\n(log scale)" * quantity.log
    )
    if not quantity.log:
        axis.xaxis.set_major_formatter(quantity.form)
        return
    axis.set_xscale("log")
    axis.margins(x=0.06)
    low, high = axis.get_xlim()
    measured = values is None or quantity.alike
    ticks = round_ticks(low, high) if measured else run_ticks(values or (), exact=quantity.column == "lr")
    apart = _APART / inches * math.log(high / low)
    axis.xaxis.set_major_locator(FixedLocator(_thinned(ticks, apart)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(quantity.form)


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, both > 0: 1, 2, 5 of each decade, others where there is less than one."""
    if high / low < 10:
        ticks = MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(low, high)
    else:
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _thinned(ticks: Sequence[float], apart: float) -> list[float]:
    """The ``ticks`` that can be written side by side, at least ``apart`` in logarithm."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= apart:
            kept.append(tick)
    return kept


def labels_beside(figure: Figure, axis: Any, entries: Sequence[Entry], fixed: bool, led: bool = False) -> None:
    """Write each label at the right of the axes, as near as may be to where its line ends; axis limits are set.

    The figure grows if they need it, unless its height is ``fixed``. ``led``: with a thin line from each line's end.
    ``axis`` is the highest where several stand one below the other.
    """
    size = matplotlib.rcParams["font.size"] * 0.88
    letters = max(14, int(5 * figure.get_figwidth()))
    names = [textwrap.fill(label, letters) for label, _, _ in entries]
    heights = [size * _LINE * (1 + name.count("\n")) for name in names]
    one, room = _heights(figure, axis)
    if sum(heights) > room and not fixed:
        figure.set_figheight(figure.get_figheight() + (sum(heights) - room) / 72)
        one, room = _heights(figure, axis)
    low, high = axis.get_ylim()
    wanted = [min(1.0, max(0.0, (end - low) / (high - low))) for _, _, end in entries]
    places = spread(wanted, [height / one for height in heights], 1 - room / one)
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


def _heights(figure: Figure, axis: Any) -> tuple[float, float]:
    """Of ``axis``, and from its top to the bottom of the lowest axes, in points."""
    figure.draw_without_rendering()  # which lays them out
    points, own = 72 / figure.dpi, axis.get_window_extent()
    return own.height * points, (own.y1 - min(each.get_window_extent().y0 for each in figure.axes)) * points


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
