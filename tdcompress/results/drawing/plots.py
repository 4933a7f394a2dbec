"""One function a figure: each takes a table of runs that can be compared and draws it at the width of a column."""

from __future__ import annotations

import pkgutil
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from ...tensor import formats
from ...tensor.formats import BASELINE

WIDTH = 3.5  # inches: a column in print
DIVERGED = "diverged"
INK = "#222222"  # text, axes and the baseline


# Okabe and Ito (2008), told apart with any kind of colour vision.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8C6D1F", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.size": 8,
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
    "pdf.fonttype": 42,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def accuracy_over_epochs(metrics: pandas.DataFrame, split: str) -> Figure:
    """Accuracy on the ``split`` (train, validation, test) after each epoch, a line per label: mean, range over seeds.

    ``metrics``: columns label, method, seed, epoch, and the split's accuracy, such as test_accuracy (fractions).
    """
    figure, axis = _figure(2.5)
    curves = {}
    for label, style, rows in _lines(metrics):
        curves[label] = by_epoch = _spread(rows, "epoch", f"{split}_accuracy")
        axis.plot(by_epoch.index, by_epoch["mean"], label=label, markevery=max(1, len(by_epoch) // 8), **style)
        axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=style["color"], alpha=0.2, lw=0)
    axis.set(xlabel="epoch", ylabel=f"{'training' if split == 'train' else split} accuracy (%)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    # The first steep epochs would press the rest into one line.
    settled = [curve["min"].iloc[min(len(curve) - 1, len(curve) // 5)] for curve in curves.values()]
    top = max(curve["max"].max() for curve in curves.values())
    low = min(*settled, top - 1)
    axis.set_ylim(max(0, low - 0.15 * (top - low)), top + 0.05 * (top - low))
    _legend(figure, axis)
    return figure


def accuracy_over(runs: pandas.DataFrame, column: str, title: str) -> Figure:
    """Final test accuracy over a count (logarithmic), a line per label through its ranks: mean, and range over seeds.

    The baseline is a horizontal line. ``runs``: columns label, method, rank, test_accuracy (fraction), ``column``.
    """
    figure, axis = _figure(2.5)
    for label, style, rows in _lines(runs):
        points = _spread(rows, "label" if label == BASELINE else column, "test_accuracy")
        if label == BASELINE:
            axis.axhline(points["mean"].iloc[0], label=label, color=style["color"], lw=1)
            axis.axhspan(points["min"].iloc[0], points["max"].iloc[0], color=style["color"], alpha=0.15, lw=0)
        else:
            _errorbar(axis, points, label, style)
    axis.set(xscale="log", xlabel=title, ylabel="test accuracy (%)")
    low, high = axis.get_ylim()
    if high - low < 1:  # a wider look at what is mostly noise
        axis.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    _plain_ticks(axis, column)
    _legend(figure, axis)
    return figure


def accuracy_over_learning_rate(runs: pandas.DataFrame) -> Figure:
    """Final test accuracy over the learning rate, a line per label; a cross at the bottom for runs that diverged.

    ``runs``: columns label, method, lr, status, test_accuracy (fraction; diverged runs need none).
    """
    figure, axis = _figure(2.5)
    lines = list(_lines(runs))
    across = axis.get_xaxis_transform()
    for place, (label, style, rows) in enumerate(lines):
        _errorbar(axis, _spread(rows[rows["status"] == "finished"], "lr", "test_accuracy"), label, style)
        apart = 1.12 ** (place - (len(lines) - 1) / 2)  # crosses of several methods at one rate side by side
        diverged = rows.loc[rows["status"] == DIVERGED, "lr"].unique() * apart
        axis.plot(diverged, [0.03] * len(diverged), "x", color=style["color"], transform=across, ms=4)
    if (runs["status"] == DIVERGED).any():
        axis.plot([], [], "x", color=INK, ms=4, label=DIVERGED)
    axis.set(xscale="log", xlabel="learning rate", ylabel="test accuracy (%)")
    axis.margins(x=0.08)
    _legend(figure, axis)
    return figure


def seconds_per_epoch(runs: pandas.DataFrame) -> Figure:
    """Seconds that training takes per epoch (each run's median), a bar per label: mean, and range over seeds."""
    lines = list(_lines(runs))
    names = [textwrap.fill(label, 24) for label, _, _ in lines]
    figure, axis = _figure(0.55 + 0.2 * len(lines) + 0.1 * sum(name.count("\n") for name in names))
    for place, (_, style, rows) in enumerate(lines):
        value = rows["train_seconds_per_epoch"].agg(["mean", "min", "max"])
        spread = [[value["mean"] - value["min"]], [value["max"] - value["mean"]]]
        axis.barh(
            place, value["mean"], xerr=spread, color=style["color"], height=0.7, error_kw={"lw": 0.8, "ecolor": INK}
        )
        text = f"{value['mean']:.3g}"
        axis.annotate(text, (value["max"], place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks(range(len(lines)), names)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.grid(False, axis="y")
    axis.set_xlabel("training seconds per epoch")
    return figure


def method_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method: by its place among all formats, so the same in every figure."""
    known = sorted(module.name for module in pkgutil.iter_modules(formats.__path__) if module.name != BASELINE)
    places = [*known, *sorted(set(names) - set(known) - {BASELINE})]
    styles = {
        name: {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]} for k, name in enumerate(places)
    }
    return {BASELINE: {"color": INK, "marker": "*"}, **styles}


def _lines(table: pandas.DataFrame) -> list[tuple[str, dict[str, Any], pandas.DataFrame]]:
    """Label, style and rows of each line: the baseline first; of one method the first has the filled markers."""
    styles = method_styles(list(table["method"].unique()))
    drawn: dict[str, int] = {}
    lines = []
    for (method, label), rows in sorted(table.groupby(["method", "label"], sort=False), key=_baseline_first):
        dashes = DASHES[drawn.get(method, 0) % len(DASHES)]
        fill = "none" if method in drawn else "full"
        drawn[method] = drawn.get(method, 0) + 1
        lines.append((label, {**styles[method], "ls": dashes, "fillstyle": fill}, rows))
    return lines


def _baseline_first(line: tuple[tuple[str, str], Any]) -> tuple[bool, str]:
    return line[0][0] != BASELINE, line[0][0]


def _spread(rows: pandas.DataFrame, by: str, column: str) -> pandas.DataFrame:
    """Mean and range in per cent."""
    return rows.groupby(by)[column].agg(["mean", "min", "max"]) * 100


def _errorbar(axis: Any, points: pandas.DataFrame, label: str, style: dict[str, Any]) -> None:
    spread = [points["mean"] - points["min"], points["max"] - points["mean"]]
    axis.errorbar(points.index, points["mean"], yerr=spread, label=label, capsize=1.5, elinewidth=0.8, **style)


def _figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _plain_ticks(axis: Any, column: str) -> None:
    """Counts as 20k and 3M, ratios as 5x, times as they are; ticks at 1, 2 and 5 where there are too few decades."""
    low, high = axis.get_xlim()
    if high / low < 300:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    written = {"compression_ratio": "{:g}x", "exported_ms": "{:g}"}.get(column)
    form = EngFormatter(sep="") if written is None else FuncFormatter(lambda value, _: written.format(value))
    axis.xaxis.set_major_formatter(form)
    axis.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axis: Any) -> None:
    """Above the axes, in as many columns as the longest label leaves room for."""
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] == DIVERGED)
    names = [textwrap.fill(labels[place], 48) for place in order]
    longest = max(len(line) for name in names for line in name.splitlines())
    fit = max(1, int(72 * WIDTH / (24 + 4.2 * longest)))  # points: a line's sample and its text
    rows = -(-len(names) // fit)
    figure.set_figheight(figure.get_figheight() + 0.14 * (rows + sum(name.count("\n") for name in names)))
    figure.legend(
        [handles[place] for place in order],
        names,
        loc="outside upper left",
        ncols=-(-len(names) // rows),
        frameon=False,
        handlelength=1.6,
        columnspacing=1,
    )
