"""One function a figure of lines or bars: each takes a table of runs that can be compared, and how it is to look."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import pandas
from matplotlib.figure import Figure

from ...tensor.formats import BASELINE
from .axes import Entry, labels_beside, set_scale
from .look import INK, Look
from .quantities import Quantity, quantity

DIVERGED = "diverged"
_HEIGHT = 2.3  # inches


def over_epochs(curves: pandas.DataFrame, y: Quantity, look: Look, x: str, switches: Mapping[str, float]) -> Figure:
    """``y`` after each epoch, a line per label: mean and range over seeds.

    ``curves``: columns label, method, seed, epoch, and those of ``y`` and of ``x``. ``switches``: the epoch after
    which the runs of a label went on with cores, a ring on its line; up to there it is the baseline's where it is the
    same.
    """
    figure, axes = look.figure(_HEIGHT)
    axis, drawn, entries = axes[0, 0], [], list[Entry]()
    dense = _spread(curves[curves["label"] == BASELINE], "epoch", y)
    for label, style, rows in look.lines(curves):
        line = _spread(rows, "epoch", y)
        places = rows.groupby("epoch")[x].mean() if x != "epoch" else line.index
        before = list(line.index).index(switches[label]) if switches.get(label) in line.index else None
        shared = before is not None and line[: before + 1].equals(dense[: before + 1])
        at, own = places[before if shared else 0 :], line[before if shared else 0 :]
        axis.plot(at, own["mean"], label=label, markevery=max(1, len(line) // 8), **style)
        axis.fill_between(at, own["min"], own["max"], color=style["color"], alpha=0.2, lw=0)
        if before is not None:
            point = places[before : before + 1], line["mean"].iloc[before : before + 1]
            axis.plot(*point, "o", fillstyle="none", color=INK, ms=8, mew=0.8, zorder=4)
        drawn.append(line)
        entries.append((label, style, line["mean"].iloc[-1]))
    axis.set(xlabel="epoch" if x == "epoch" else quantity(x).label, ylabel=y.label)
    axis.xaxis.get_major_locator().set_params(integer=x == "epoch")
    if y.percent:  # the first steep epochs would press the rest into one line
        top = max(line["max"].max() for line in drawn)
        settled = [line["min"].iloc[[min(len(line) - 1, len(line) // 5), -1]].min() for line in drawn]
        low = min(top - 1, *settled)
        axis.set_ylim(max(0, low - 0.15 * (top - low)), top + 0.05 * (top - low))
    axis.margins(x=0.02)
    labels_beside(figure, axis, entries, look.height is not None, led=x == "epoch")
    return figure


def over_runs(runs: pandas.DataFrame, x: Quantity, y: Quantity, look: Look) -> Figure:
    """``y`` over ``x``, a line per label through its ranks of one kind: mean, and range over seeds.

    The baseline is a horizontal line. ``runs``: columns label, method, rank, lr, and those of ``x`` and ``y``.
    """
    figure, axes = look.figure(_HEIGHT)
    axis, entries, values = axes[0, 0], list[Entry](), list[float]()
    for label, style, rows in look.lines(runs):
        if label == BASELINE and x.column != "lr":
            points = _spread(rows, "label", y)
            axis.axhline(points["mean"].iloc[0], label=label, color=style["color"], lw=1)
            axis.axhspan(points["min"].iloc[0], points["max"].iloc[0], color=style["color"], alpha=0.15, lw=0)
            entries.append((label, style | {"marker": ""}, points["mean"].iloc[0]))
        else:
            points = _spread(rows, ["rank", "lr"], y)
            kinds = points.index.get_level_values("rank").map(_kind_of_rank)
            points.index = x.values(rows.groupby(["rank", "lr"], dropna=False)[x.column].mean())
            for kind in dict.fromkeys(kinds):
                _errorbar(axis, points[kinds == kind].sort_index(), label, style)
            points = points.sort_index()
            values += points.index.tolist()
            entries.append((label, style, points["mean"].iloc[-1]))
    set_scale(axis, x, values)
    axis.set_ylabel(y.label)
    low, high = axis.get_ylim()
    if y.percent and high - low < 1:  # a wider look at what is mostly noise
        low, high = (low + high) / 2 - 0.5, (low + high) / 2 + 0.5
    axis.set_ylim(low, high)
    labels_beside(figure, axis, entries, look.height is not None)
    return figure


def _kind_of_rank(rank: str) -> str:
    """Of what a rank is said: of bonds, of the ratio of sizes, of MACs .. Networks of one kind are one line."""
    kind, colon, _ = rank.rpartition(":")
    return kind if colon else "x" * rank.endswith("x")


def over_learning_rate(runs: pandas.DataFrame, y: Quantity, look: Look) -> Figure:
    """``y`` over the learning rate, a line per label; a cross at the bottom for runs that diverged.

    ``runs``: columns label, method, lr, status and that of ``y`` (diverged runs need none).
    """
    figure, axes = look.figure(_HEIGHT)
    axis, entries = axes[0, 0], list[Entry]()
    lines = look.lines(runs)
    across = axis.get_xaxis_transform()
    for place, (label, style, rows) in enumerate(lines):
        points = _spread(rows[rows["status"] == "finished"], "lr", y)
        _errorbar(axis, points, label, style)
        apart = 1.12 ** (place - (len(lines) - 1) / 2)  # crosses of several methods at one rate side by side
        diverged = rows.loc[rows["status"] == DIVERGED, "lr"].unique() * apart
        axis.plot(diverged, [0.03] * len(diverged), "x", color=style["color"], transform=across, ms=4)
        entries.append((label, style, -math.inf if points.empty else points["mean"].iloc[-1]))
    if (runs["status"] == DIVERGED).any():
        entries.append((DIVERGED, {"color": INK, "marker": "x", "ls": ""}, -math.inf))
    set_scale(axis, quantity("lr"), list(runs["lr"]))
    axis.set_ylabel(y.label)
    axis.set_ylim(*axis.get_ylim())
    labels_beside(figure, axis, entries, look.height is not None)
    return figure


def seconds_per_epoch(runs: pandas.DataFrame, look: Look) -> Figure:
    """Seconds that training takes per epoch (each run's median), a bar per label: mean, and range over seeds."""
    lines = look.lines(runs)
    names = [textwrap.fill(label, 24) for label, _, _ in lines]
    figure, axes = look.figure(0.55 + 0.2 * len(lines) + 0.1 * sum(name.count("\n") for name in names))
    axis = axes[0, 0]
    for place, (_, style, rows) in enumerate(lines):
        value = rows["train_seconds_per_epoch"].agg(["mean", "min", "max"])
        errors = [[value["mean"] - value["min"]], [value["max"] - value["mean"]]]
        axis.barh(
            place, value["mean"], xerr=errors, color=style["color"], height=0.7, error_kw={"lw": 0.8, "ecolor": INK}
        )
        text = f"{value['mean']:.3g}"
        axis.annotate(text, (value["max"], place), (3, 0), textcoords="offset points", va="center", fontsize="small")
    axis.set_yticks(range(len(lines)), names)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.grid(False, axis="y")
    axis.set_xlabel(quantity("train_seconds_per_epoch").label)
    return figure


def _spread(rows: pandas.DataFrame, by: Any, y: Quantity) -> pandas.DataFrame:
    """Mean and range, as drawn."""
    return rows.assign(_y=y.values(rows[y.column])).groupby(by, dropna=False)["_y"].agg(["mean", "min", "max"])


def _errorbar(axis: Any, points: pandas.DataFrame, label: str, style: dict[str, Any]) -> None:
    errors = [points["mean"] - points["min"], points["max"] - points["mean"]]
    axis.errorbar(points.index, points["mean"], yerr=errors, label=label, capsize=1.5, elinewidth=0.8, **style)
