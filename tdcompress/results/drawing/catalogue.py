"""Which figures the runs of a comparison allow, by the question that each one answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas
from matplotlib.figure import Figure

from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from ..record import METRICS, read_summary
from ..rows import OF_FILES, as_exported
from . import layers, pareto, plots, words
from .captions import absent, seeds_told, told_of_cost, with_reasons
from .comparison import Comparison, at_one_rate, labelled, panels, shared_variant
from .look import Look
from .quantities import OF_EPOCHS, Quantity, quantity

COST, LEARN, TIME, RATE, LAYERS = (
    "What does accuracy cost?",
    "How do they learn?",
    "How long does an epoch take?",
    "At which learning rate?",
    "What do single layers cost, and at which ranks?",
)
QUESTIONS = (COST, LEARN, TIME, RATE, LAYERS)
SPREAD = 1.1  # the largest count over the smallest from which on a figure over it says anything
SIZES = ("parameters", "compression_ratio", "macs")
FILES = ("exported_bytes", "exported_ms")
COSTS = ("parameters", "macs", "train_seconds_per_epoch", "exported_bytes")
_ACCURACY = "test_accuracy"
_OVER = ("epoch", "train_seconds")  # what epochs can be drawn over


@dataclass(frozen=True)
class Drawing:
    """A figure: the ``name`` of its file, the ``question`` that it answers, what it says, and how it is drawn."""

    name: str
    question: str
    title: str
    caption: str
    plot: Callable[[Look], Figure]


def drawings_of(comparison: Comparison, metrics: pandas.DataFrame) -> Iterator[Drawing]:
    """The figures that these runs allow. ``metrics``: the epochs of all runs."""
    runs = labelled(at_one_rate(comparison.runs), with_rank=False)
    shown = runs[runs["status"] == "finished"]
    yield from _pareto(comparison, runs, shown)
    compressed = shown[shown["rank"] != ""]
    for column in SIZES:
        if compressed[column].max() > SPREAD * compressed[column].min():
            yield _over_runs(comparison, quantity(column), quantity(_ACCURACY), runs, shown)
    for column in FILES:
        for group, files in _comparable(shown, [quantity(column)]):
            sizes = files.loc[files["rank"] != "", column].astype(float)
            if sizes.max() > SPREAD * sizes.min():
                yield _over_runs(comparison, quantity(column), quantity(_ACCURACY), runs, files, group)
    shown_together = list(panels(at_one_rate(comparison.runs)))
    for apart, panel in shown_together:
        for column in ("test_accuracy", "validation_accuracy", "train_accuracy"):
            yield from _over_epochs(comparison, apart, panel, metrics, "epoch", quantity(column))
    for apart, panel in shown_together:
        yield from _seconds(comparison, apart, panel)
    if comparison.runs["lr"].nunique() > 1:
        for apart, panel in panels(comparison.runs):
            tried = panel[panel["status"].isin(["finished", plots.DIVERGED])]
            plot = partial(plots.over_learning_rate, tried, quantity(_ACCURACY))
            about = _About(comparison, panel, tried, by="lr", marks=_bars(tried))
            yield about.drawing(RATE, "accuracy over learning rate", plot, apart)
    for apart, panel in shown_together:
        yield from _of_layers(comparison, apart, panel)


def drawings_over(comparison: Comparison, metrics: pandas.DataFrame, x: str | None, y: str | None) -> Iterator[Drawing]:
    """The figures of column ``y`` over column ``x``: of epochs where either is of epochs only, else of runs.

    Raises ``ConfigError`` for columns that are not there, or of which one is of epochs and the other one is not.
    """
    x, y = axes_asked(x, y)
    across, up = quantity(x), quantity(y)
    if x in _OVER or {across.column, up.column} & set(OF_EPOCHS):
        if x not in _OVER or up.column not in METRICS:
            raise ConfigError(
                f"y={up.column} over x={x}: epochs are drawn over {' or '.join(_OVER)}, with y one of "
                f"{', '.join(METRICS[1:])}"
            )
        for apart, panel in panels(at_one_rate(comparison.runs)):
            yield from _over_epochs(comparison, apart, panel, metrics, x, up)
        return
    runs = labelled(at_one_rate(comparison.runs) if x != "lr" else comparison.runs, with_rank=False)
    shown = runs[(runs["status"] == "finished") & runs[up.column].notna()]
    for group, part in _comparable(shown, [across, up]):
        if (part["label"] != BASELINE).any():
            yield _over_runs(comparison, across, up, runs, part, group)


def axes_asked(x: str | None, y: str | None) -> tuple[str, str]:
    """Both columns, where one of them was not said."""
    return x or ("epoch" if y in OF_EPOCHS else "parameters"), y or _ACCURACY


@dataclass(frozen=True)
class _About:
    """What a figure of a ``comparison`` shows: of these ``runs`` those ``shown``; ``marks``: what it means.

    ``by``: the column whose values one would look for; ``more``: what else the runs have in common.
    """

    comparison: Comparison
    runs: pandas.DataFrame
    shown: pandas.DataFrame
    by: str | None = None
    marks: Sequence[str] = ()
    more: Sequence[str] = ()

    def drawing(self, question: str, figure: str, plot: Callable[[Look], Figure], *apart: str) -> Drawing:
        """``figure``: its name; ``apart``: what sets it apart from others of this name."""
        name = "_".join([self.comparison.name, *map(words.slug, filter(None, [figure, *apart]))])
        title = ", ".join([self.comparison.title, *filter(None, apart)])
        return Drawing(name, question, title, self._caption(), plot)

    def _caption(self) -> str:
        what = self.comparison.what
        for column, said in (("lr", "learning rate {:g}".format), ("rank", words.rank)):
            values = self.shown.loc[self.shown[column] != "", column].dropna().unique()
            what += [said(value) for value in values if len(values) == 1]
        what += words.phrases(" ".join(shared_variant(self.runs))).values()
        sentences = [", ".join([*what, *self.more]), seeds_told(self.shown), *self.marks]
        ours = self.comparison.lost[self.comparison.lost["method"].isin(self.runs["method"])].dropna(subset=["seed"])
        lost = [(str(method), int(seed)) for method, seed in zip(ours["method"], ours["seed"], strict=True)]
        missing = absent(self.runs, set(self.shown["directory"]), self.by, lost)
        missing += [f"{method} seed {seed} (broken)" for method, seed in lost]
        if missing:
            sentences.append("Not drawn: " + "; ".join(missing[:8]) + f"; {len(missing) - 8} more" * (len(missing) > 8))
        return ". ".join(sentences) + "."


def _comparable(
    runs: pandas.DataFrame, quantities: Iterable[Quantity]
) -> Iterator[tuple[tuple[str, ...], pandas.DataFrame]]:
    """The runs that have these quantities, in groups in which they can be compared, and what each group agrees in."""
    known = runs.dropna(subset=[one.column for one in quantities])
    alike = list(dict.fromkeys(column for one in quantities for column in one.alike))
    if not alike and len(known):
        yield (), known
    for group, part in known.groupby(alike) if alike else ():
        yield tuple(map(str, group)), part


def _over_runs(
    comparison: Comparison,
    x: Quantity,
    y: Quantity,
    runs: pandas.DataFrame,
    known: pandas.DataFrame,
    group: tuple[str, ...] = (),
) -> Drawing:
    """``y`` over ``x`` of the runs ``known`` to have them, and of the baseline, which needs no ``x``."""
    if {x.column, y.column} & set(OF_FILES):
        runs = as_exported(runs)
    baseline = (runs["label"] == BASELINE) & (runs["status"] == "finished") & (not y.alike) & (x.column != "lr")
    drawn = runs["directory"].isin(known["directory"]) | baseline
    others, shown = with_reasons(runs, drawn, [x, y]), runs[drawn]
    about = _About(
        comparison, others, shown, "lr" if x.column == "lr" else "rank", [*_bars(shown), *_band(shown)], group
    )
    figure = f"{'accuracy' if y.column == _ACCURACY else y.title} over {_short(x)}"
    return about.drawing(COST, figure, partial(plots.over_runs, shown, x, y), *group)


def _over_epochs(
    comparison: Comparison, apart: str, panel: pandas.DataFrame, metrics: pandas.DataFrame, x: str, y: Quantity
) -> Iterator[Drawing]:
    shown = panel[panel["status"] == "finished"]
    columns = list(dict.fromkeys(["directory", "epoch", y.column, "parameters", "macs"]))
    epochs = metrics[columns].assign(**{x: metrics[x]})
    if x == "train_seconds":  # unknown behind an epoch whose are
        known = ~epochs[x].isna().groupby(epochs["directory"]).cummax()
        epochs[x] = epochs.groupby("directory")[x].cumsum().where(known)
    keys = ["label", "method", "seed", "directory", "device", "dense_parameters", "dense_macs", "rank"]
    curves = shown[keys].merge(epochs, on="directory").dropna(subset=[x, y.column])
    for group, part in _comparable(curves, [quantity(x), y]):
        switches = _switches(part)
        seeds = part.groupby("label")["seed"].nunique().max()
        marks = ["Bands: the range over seeds"] if seeds > 1 else []
        marks += ["Rings: the switch from full rank to cores"] if switches else []
        runs = shown[shown["directory"].isin(part["directory"])]
        others = with_reasons(panel, panel["directory"].isin(runs["directory"]), [])
        unread = (panel["status"] == "finished") & ~panel["directory"].isin(curves["directory"])
        others["status"] = others["status"].mask(unread, f"no {y.title} of all epochs")
        about = _About(comparison, others, runs, None, marks, group)
        over = "epochs" if x == "epoch" else "seconds"
        plot = partial(plots.over_epochs, part, y, x=x, switches=switches)
        yield about.drawing(LEARN, f"{y.title} over {over}", plot, apart, *group)


def _switches(curves: pandas.DataFrame) -> dict[str, float]:
    """For each label the epoch after which its networks were no longer the dense ones; the median over its runs."""
    held = curves[curves["rank"] != ""]
    dense = (held["parameters"] == held["dense_parameters"]) & (held["macs"] == held["dense_macs"])
    last = held[dense].groupby(["label", "directory"])["epoch"].max()
    return {str(label): float(epochs.sort_values().iloc[len(epochs) // 2]) for label, epochs in last.groupby("label")}


def _seconds(comparison: Comparison, apart: str, panel: pandas.DataFrame) -> Iterator[Drawing]:
    finished = panel["status"] == "finished"
    devices = list(panel[finished & panel["train_seconds_per_epoch"].notna()].groupby("device"))
    for device, rows in devices:
        others = with_reasons(panel, panel["directory"].isin(rows["directory"]), [quantity("train_seconds_per_epoch")])
        marks = ["Whiskers: the range over seeds"] if rows["seed"].nunique() > 1 else []
        about = _About(comparison, others, rows, None, marks, [device])
        places = [device] if len(devices) > 1 else []
        yield about.drawing(TIME, "seconds per epoch", partial(plots.seconds_per_epoch, rows), apart, *places)


def _pareto(comparison: Comparison, runs: pandas.DataFrame, shown: pandas.DataFrame) -> Iterator[Drawing]:
    if len(shown.groupby(["label", "rank"])) < 3 or shown["label"].nunique() < 2:
        return
    costs, table, told = [], shown, []
    for cost in map(quantity, COSTS):
        groups = sorted(_comparable(shown, [cost]), key=lambda group: len(group[1]))
        if groups and len(groups[-1][1].groupby(["label", "rank"])) >= 3:
            alike, known = groups[-1]
            values = known[cost.column].astype(float)
            if values.max() > SPREAD * values.min():
                costs.append(cost)
                table = table.assign(**{cost.column: table[cost.column].where(table.index.isin(known.index))})
                told += told_of_cost(cost, alike, shown, known)
    if len(costs) > 1:
        marks = ["Points: means over seeds", *_bars(shown), "Dashed: the networks that no other one beats", *told]
        about = _About(comparison, runs, shown, "rank", marks)
        yield about.drawing(COST, "pareto front", partial(pareto.pareto, table, costs, quantity(_ACCURACY)))


def _of_layers(comparison: Comparison, apart: str, panel: pandas.DataFrame) -> Iterator[Drawing]:
    """Of the runs whose own directories are there, the first seed of each label."""
    finished = panel[panel["status"] == "finished"].sort_values("seed", kind="stable").drop_duplicates("label")
    found = [(row, read_summary(Path(row["directory"]))) for row in finished.to_dict("records")]
    held: dict[str, Any] = {
        row["label"]: (row["method"], one.layers)
        for row, one in found
        if one is not None and any(layer.get("ranks") for layer in one.layers)
    }
    changed = {
        row["label"]: (one.ranks, one.epochs_done) for row, one in found if one is not None and len(one.ranks) > 1
    }
    for name, mark, labels, plot in (
        ("cost by layer", "Only layers that hold cores", held, partial(layers.cost_by_layer, held)),
        ("ranks over epochs", "The mean over a layer's bonds", changed, partial(layers.ranks_over_epochs, changed)),
    ):
        if labels:
            part = finished[finished["label"].isin(labels)]
            yield _About(comparison, part, part, marks=[mark]).drawing(LAYERS, name, plot, apart)


def _short(x: Quantity) -> str:
    return {"macs": "MACs"}.get(x.column, x.column.replace("_", " "))


def _bars(shown: pandas.DataFrame) -> list[str]:
    several = (
        shown[shown["label"] != BASELINE].groupby(["label", "rank", "lr"], dropna=False)["seed"].nunique().max() > 1
    )
    return ["Bars: the range over seeds"] if several else []


def _band(shown: pandas.DataFrame) -> list[str]:
    several = shown.loc[shown["label"] == BASELINE, "seed"].nunique() > 1
    return ["Black line and grey band: dense, mean and range over its seeds"] if several else []
