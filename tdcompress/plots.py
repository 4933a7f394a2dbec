"""The comparison figures, drawn from whatever runs there are: one function a figure."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ConfigError
from .runs import read_metrics, read_runs

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

COLUMN = 3.4  # inches: the width of a column in print
BASELINE = "dense"
# Okabe and Ito (2008): told apart with any kind of colour vision. Black is the baseline's.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8C6D1F", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "svg.hashsalt": "tdcompress",
}


def plot_all(results_dir: str | Path, extensions: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Draw every figure that the runs under ``results_dir`` allow, into ``results_dir``/figures; the files written.

    Runs are compared only with runs of the same data set, arch and number of epochs. Raises ``ConfigError`` when
    there is nothing to draw or a file format is not known.
    """
    unknown = sorted(set(extensions) - {"png", "svg", "pdf"})
    if unknown:
        raise ConfigError(f"unknown figure format '{unknown[0]}', known: png, svg, pdf")
    runs = read_runs(results_dir)
    drawn = runs[runs["status"].isin(["finished"])]
    if drawn.empty:
        raise ConfigError(f"no finished runs in {Path(results_dir) / 'runs'}: tdc train -m method=tt,dense makes two")
    import matplotlib

    folder = Path(results_dir) / "figures"
    written: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for (dataset, arch, epochs), group in drawn.groupby(["dataset", "arch", "epochs"]):
            left_out = runs[(runs["dataset"] == dataset) & (runs["arch"] == arch) & (runs["epochs"] == epochs)]
            note = _note(group, left_out, f"{dataset}, {arch}, {epochs:.0f} epochs")
            figures = {
                "accuracy_over_epochs": accuracy_over_epochs(read_metrics(group), note),
                "accuracy_over_compression": accuracy_over(group, "compression_ratio", "compression ratio", note),
                "accuracy_over_macs": accuracy_over(group, "macs", "MACs per image", note),
                "seconds_per_epoch": seconds_per_epoch(group, note),
            }
            for name, figure in figures.items():
                for extension in extensions:
                    path = folder / f"{_file_name(f'{dataset}_{arch}_{epochs:.0f}_epochs')}_{name}.{extension}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    metadata = {"Date": None} if extension == "svg" else None
                    figure.savefig(path, dpi=300, bbox_inches="tight", metadata=metadata)
                    written.append(path)
    return written


def accuracy_over_epochs(metrics: pandas.DataFrame, note: str) -> Figure:
    """Train and test accuracy over epochs, a line per method and rank; the mean, and the range over seeds."""
    figure = _figure(2 * COLUMN, 2.6)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, column, title in zip(axes, ("train_accuracy", "test_accuracy"), ("training", "test"), strict=True):
        for style, label, lines in _variants(metrics):
            by_epoch = lines.groupby("epoch")[column].agg(["mean", "min", "max"]) * 100
            every = max(1, len(by_epoch) // 8)
            axis.plot(by_epoch.index, by_epoch["mean"], label=label, markevery=every, **style)
            axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=style["color"], alpha=0.15, lw=0)
        axis.set(xlabel="epoch", title=f"{title} accuracy")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("accuracy (%)")
    last = metrics.sort_values("epoch").groupby("directory")[["train_accuracy", "test_accuracy"]]
    _crop(axes[0], [float(v) * 100 for v in (last.nth(len(metrics["epoch"].unique()) // 4).min())], 100)
    _legend(figure, axes[1])
    _footnote(figure, note)
    return figure


def accuracy_over(runs: pandas.DataFrame, column: str, title: str, note: str) -> Figure:
    """Final test accuracy over a count (logarithmic), a line per method through its ranks; mean, and range of seeds."""
    figure = _figure(COLUMN, 2.6)
    axis = figure.subplots()
    for style, label, points in _variants(runs, by_rank=False):
        found = points.groupby(column)["test_accuracy"].agg(["mean", "min", "max"]) * 100
        spread = [found["mean"] - found["min"], found["max"] - found["mean"]]
        if label == BASELINE:
            axis.axhline(found["mean"].iloc[0], color=style["color"], lw=0.8, ls=":")
        axis.errorbar(found.index, found["mean"], yerr=spread, label=label, capsize=2, **style)
    axis.set(xscale="log", xlabel=title, ylabel="test accuracy (%)")
    _legend(figure, axis)
    _footnote(figure, note)
    return figure


def seconds_per_epoch(runs: pandas.DataFrame, note: str) -> Figure:
    """Median training seconds per epoch, a bar per method and rank."""
    variants = list(_variants(runs))
    figure = _figure(COLUMN, 0.8 + 0.22 * len(variants))
    axis = figure.subplots()
    for place, (style, _, found) in enumerate(variants):
        value = found["train_seconds_per_epoch"].median()
        axis.barh(place, value, color=style["color"], height=0.7)
        axis.annotate(f" {value:.3g}", (value, place), va="center", fontsize=7)
    axis.set_yticks(range(len(variants)), [label for _, label, _ in variants])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.grid(False, axis="y")
    axis.set_xlabel("training seconds per epoch")
    devices = ", ".join(sorted(runs["device"].dropna().unique()))
    _footnote(figure, f"{note}\n{devices}")
    return figure


def method_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method: by its place among all formats, so the same in every figure."""
    from . import formats as package

    known = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != BASELINE)
    places = [*known, *sorted(set(names) - set(known) - {BASELINE})]
    styles = {
        name: {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]} for k, name in enumerate(places)
    }
    return {BASELINE: {"color": "black", "marker": "*"}, **styles}


def _variants(table: pandas.DataFrame, by_rank: bool = True) -> list[tuple[dict[str, Any], str, pandas.DataFrame]]:
    """The rows of each method (and rank, and variant of the configuration) with their style and label."""
    styles = method_styles(list(table["method"].unique()))
    table = table.assign(variant=[Path(directory).parent.name for directory in table["directory"]])
    found = []
    for method, rows in sorted(table.groupby("method"), key=lambda item: (item[0] != BASELINE, item[0])):
        parts = list(rows.groupby(["rank", "variant"])) if by_rank else [(("", ""), rows)]
        dashes = ("-", "--", ":", "-.")
        for k, ((rank, variant), part) in enumerate(parts):
            several = len(parts) > 1
            same_rank = sum(other[0][0] == rank for other in parts) > 1
            label = f"{method} {variant.removeprefix(method + '-') if same_rank else rank}" if several else str(method)
            found.append(({**styles[method], "ls": dashes[k % len(dashes)]}, label.strip(), part))
    return found


def _note(drawn: pandas.DataFrame, all_runs: pandas.DataFrame, what: str) -> str:
    seeds = drawn.groupby(["method", "rank"])["seed"].nunique()
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    note = f"{what}; {count} seed{'s' if count != '1' else ''} a line"
    missing = all_runs[all_runs["status"] != "finished"]
    if len(missing):
        names = sorted({f"{row.method} {row.rank} ({row.status})".replace("  ", " ") for row in missing.itertuples()})
        note += "\nleft out: " + ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return note


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _crop(axis: Any, lows: Sequence[float], top: float) -> None:
    """Leave out the first steep epochs, where they would press the rest into one line."""
    low = min(lows)
    axis.set_ylim(max(0.0, low - (top - low) * 0.2 - 0.1), top + (top - low) * 0.03)


def _legend(figure: Figure, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)


def _footnote(figure: Figure, note: str) -> None:
    figure.supxlabel(note, fontsize=6.5, color="#555555", x=0.01, ha="left")


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)
