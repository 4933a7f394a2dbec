"""The Pareto front: what accuracy each network costs, in parameters, MACs, time and bytes, a panel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas
from matplotlib.figure import Figure

from ..rows import OF_FILES, as_exported
from .axes import Entry, labels_beside, set_scale
from .look import INK, PAGE, Look
from .quantities import Quantity

FRONT = "Pareto front"
_PANEL = 1.9  # inches high
_SMALL = 6  # points
_DASHED: dict[str, Any] = {"color": INK, "lw": 0.8, "ls": "--"}


def front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """The places of the points that no other one beats: none costs as little and gains more, or less and as much."""
    order = sorted(range(len(costs)), key=lambda one: (costs[one], -gains[one]))
    found: list[int] = []
    for one in order:
        if not found or gains[one] > gains[found[-1]]:
            found.append(one)
    return found


def pareto(runs: pandas.DataFrame, costs: Sequence[Quantity], y: Quantity, look: Look) -> Figure:
    """``y`` over each of the ``costs``, a point for each label and rank (mean over seeds, a bar from the least to
    the most), and the front through the means, with each rank beside its last point there.

    ``runs``: columns label, method, rank, ``y``'s, and those of the costs, nan where a run has none: means and bars are
    over all seeds, costs over those that have one. Over a file's size ``y`` is that of what the file holds.
    """
    columns = len(costs) if look.width > 0.8 * PAGE else min(2, len(costs))
    rows = -(-len(costs) // columns)
    figure, table = look.figure(_PANEL * rows, columns, rows, sharey=True)
    for axis in table.flat[len(costs) :]:
        axis.set_axis_off()
    lines, ends = look.lines(runs), dict[str, float]()
    panels: list[tuple[Any, Quantity, Sequence[float], dict[str, tuple[float, float]]]] = []
    for axis, cost in zip(table.flat, costs, strict=False):
        points: list[tuple[float, float, str]] = []
        for label, style, part in lines:
            groups = (as_exported(part) if cost.column in OF_FILES else part).groupby("rank")
            places = cost.values(groups[cost.column].mean()).dropna()
            heights, low, high = (y.values(groups[y.column].agg(of)).loc[places.index] for of in ("mean", "min", "max"))
            axis.vlines(places, low, high, color=style["color"], lw=0.8, zorder=1.5)
            axis.plot(places, heights, label=label, **{**style, "ls": ""})
            points += zip(places, heights, places.index, strict=True)
            ends |= {label: heights.max()} if len(heights) else {}
        xs, ys, ranks = zip(*points, strict=True)
        best = front(xs, ys)
        axis.step(*([of[one] for one in best] for of in (xs, ys)), where="post", label=FRONT, **_DASHED, zorder=1)
        set_scale(axis, cost, xs)
        panels.append((axis, cost, xs, {ranks[one]: (xs[one], ys[one]) for one in best}))
    for axis in table[:, 0]:
        axis.set_ylabel(y.label)
    last = table[0, -1]
    last.set_ylim(*last.get_ylim())
    entries: list[Entry] = [(label, {**style, "ls": ""}, ends.get(label, -math.inf)) for label, style, _ in lines]
    entries.append((FRONT, {**_DASHED, "marker": ""}, -math.inf))
    labels_beside(figure, last, entries, look.height is not None)
    figure.draw_without_rendering()  # which lays the axes out
    for axis, cost, values, names in panels:
        for name, point in names.items():
            _name(axis, name, point)
        set_scale(axis, cost, values)  # whose ticks have another room now
    return figure


def _name(axis: Any, name: str, point: tuple[float, float]) -> None:
    """Write ``name`` above the front, left of its ``point``, where no other point is; the axis begins where it fits."""
    text = axis.annotate(name, point, (-2, 2), textcoords="offset points", size=_SMALL, ha="right")
    box, begin = axis.get_window_extent(), text.get_window_extent().x0 - 0.04 * axis.figure.dpi
    if begin < box.x0:
        share = (axis.transData.transform(point)[0] - begin) / box.width
        scale = axis.xaxis.get_transform()
        place, right = scale.transform([point[0], axis.get_xlim()[1]])
        axis.set_xlim(left=scale.inverted().transform((place - share * right) / (1 - share)))
