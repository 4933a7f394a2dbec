"""Which figures the results allow: runs that can be compared, and the files of their figures."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas
from matplotlib.figure import Figure

from ...device.files import write_whole
from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from ..rows import adaptive, natural
from ..tables import read_results
from . import plots
from .captions import absent, seeds_told

SAME = ["dataset", "arch", "epochs", "batch_size", "setting"]  # runs that differ here are never in one figure
EXTENSIONS = ("png", "svg", "pdf")
SPREAD = 1.1  # the largest count over the smallest from which on a figure over it says anything
COUNTS = {"parameters": "parameters", "compression_ratio": "compression ratio", "macs": "MACs per image"}
FILES = {
    "exported_bytes": ("bytes of the {} file", ["exported"]),
    "exported_ms": ("ms for one image, {} file", ["exported", "exported_on"]),
}
"""Of exported files: what is drawn over, and the columns in which the files of one figure agree."""


@dataclass(frozen=True)
class Drawing:
    """A figure without its caption, and the name of its file."""

    name: str
    figure: Figure
    caption: str


def plot_all(results_dir: str | Path, extensions: Sequence[str] = ("png", "svg"), **filters: Any) -> list[Path]:
    """Draw every figure that the runs under ``results_dir`` allow, into ``results_dir``/figures; the files written.

    ``filters`` choose runs as in ``read_runs``. Raises ``ConfigError`` when there is nothing to draw or a file format
    is not known.
    """
    unknown = sorted(set(extensions) - set(EXTENSIONS))
    if unknown:
        raise ConfigError(f"unknown figure format '{unknown[0]}', known: {', '.join(EXTENSIONS)}")
    written = []
    for drawing in drawings(*read_results(results_dir, **filters)):
        _footnote(drawing)
        for extension in extensions:
            path = Path(results_dir) / "figures" / f"{drawing.name}.{extension}"
            metadata = {"Date": None} if extension == "svg" else None
            write_whole(path, partial(drawing.figure.savefig, format=extension, dpi=300, metadata=metadata))
            written.append(path)
    if not written:
        like = " like that" if filters else ""
        raise ConfigError(
            f"no finished runs{like} in {Path(results_dir) / 'runs'}: tdc train -m method=tt,dense makes two"
        )
    return written


def drawings(runs: pandas.DataFrame, epochs: pandas.DataFrame) -> Iterator[Drawing]:
    """Every figure of ``runs`` and their ``epochs``, as ``read_results`` gives them."""
    for comparison in comparisons(runs):
        yield from comparison.drawings(epochs)


def comparisons(runs: pandas.DataFrame) -> Iterator[Comparison]:
    """The runs in groups that can be compared; only groups with a finished run."""
    known = runs[runs["status"] != "broken"]
    for key, group in known.groupby(SAME, dropna=False):
        if (group["status"] == "finished").any():
            dataset, arch, epochs = key[:3]
            alike = known[(known["dataset"] == dataset) & (known["arch"] == arch) & (known["epochs"] == epochs)]
            lost = runs[(runs["status"] == "broken") & (runs["dataset"] == dataset) & (runs["arch"] == arch)]
            yield Comparison(group, lost, alike)


class Comparison:
    """Runs that agree in all but method, rank, learning rate and seed. ``lost``: broken ones, perhaps of them.

    ``alike`` are all runs of the same data set, arch and number of epochs: what sets these apart goes into names.
    """

    def __init__(self, runs: pandas.DataFrame, lost: pandas.DataFrame, alike: pandas.DataFrame) -> None:
        self.runs, self.lost = runs, lost
        first = runs.iloc[0]
        settings = {tuple(row) for row in alike[["batch_size", "setting"]].itertuples(index=False)}
        common = set.intersection(*(set(setting.split()) for _, setting in settings))
        self.name = f"{first['dataset']}_{first['arch']}_{first['epochs']:.0f}-epochs"
        if len(settings) > 1:
            text = f"{first['batch_size']:g} {first['setting']}"
            self.name += "_" + hashlib.sha256(text.encode()).hexdigest()[:6]
        # The optimizer has many words, worth telling only where it is what differs.
        told = [word for word in first["setting"].split() if word not in common or not word.startswith("optim.")]
        self.what = [f"{first['dataset']}, {first['arch']}, {first['epochs']:.0f} epochs", *told]
        if first["batch_size"] == first["batch_size"]:
            self.what.append(f"batch size {first['batch_size']:.0f}")

    def drawings(self, metrics: pandas.DataFrame) -> Iterator[Drawing]:
        """The figures that these runs allow, in matplotlib's settings for them."""
        with matplotlib.rc_context(plots.STYLE):
            yield from self._drawings(metrics)

    def _drawings(self, metrics: pandas.DataFrame) -> Iterator[Drawing]:
        if self.runs["lr"].nunique() > 1:
            for rank, panel in _by_rank(self.runs):
                shown = panel[panel["status"].isin(["finished", "diverged"])]
                yield self._drawing(
                    ["accuracy_over_learning_rate", rank], plots.accuracy_over_learning_rate(shown), panel, shown, "lr"
                )
        at_one_rate = _at_one_rate(self.runs)
        runs = _labelled(at_one_rate, by_rank=False)
        shown = runs[runs["status"] == "finished"]
        compressed = shown[shown["rank"] != ""]
        for column, title in COUNTS.items():
            if compressed[column].max() > SPREAD * compressed[column].min():
                figure = plots.accuracy_over(shown, column, title)
                yield self._drawing([f"accuracy_over_{column}"], figure, runs, shown, "rank")
        for column, (title, alike) in FILES.items():
            for group, files in shown[shown["exported"] != ""].groupby(alike):
                yield from self._of_files(column, title, group, files, runs)
        for rank, panel in _by_rank(at_one_rate):
            yield from self._of_one_rank(rank, panel, metrics)

    def _of_files(
        self, column: str, title: str, group: tuple[str, ...], files: pandas.DataFrame, runs: pandas.DataFrame
    ) -> Iterator[Drawing]:
        """Accuracy over a quantity of the ``files`` that some of these ``runs`` were exported as."""
        sizes = files.loc[files["rank"] != "", column].astype(float)
        if sizes.max() > SPREAD * sizes.min():
            baseline = (runs["label"] == BASELINE) & (runs["status"] == "finished")
            drawn = runs.index.isin(files.index) | baseline
            others = runs.assign(status=runs["status"].mask(~drawn & (runs["status"] == "finished"), "not exported"))
            figure = plots.accuracy_over(runs[drawn], column, title.format(group[0]))
            yield self._drawing([f"accuracy_over_{column}", *group], figure, others, runs[drawn], "rank", group[1:])

    def _of_one_rank(self, rank: str, panel: pandas.DataFrame, metrics: pandas.DataFrame) -> Iterator[Drawing]:
        shown = panel[panel["status"] == "finished"]
        splits = ("train", "validation", "test")
        epochs = metrics[["directory", "epoch", *(f"{split}_accuracy" for split in splits)]]
        curves = shown[["label", "method", "seed", "directory"]].merge(epochs, on="directory")
        for split in splits:
            if curves[f"{split}_accuracy"].notna().any():
                figure = plots.accuracy_over_epochs(curves, split)
                yield self._drawing([f"{split}_accuracy_over_epochs", rank], figure, panel, shown)
        devices = list(shown.groupby("device"))
        for device, rows in devices:
            name = ["seconds_per_epoch", rank, *([_file_name(device)] if len(devices) > 1 else [])]
            others = panel[(panel["device"] == device) | (panel["status"] != "finished")]
            yield self._drawing(name, plots.seconds_per_epoch(rows), others, rows, more=[device])

    def _drawing(
        self,
        name: list[str],
        figure: Figure,
        runs: pandas.DataFrame,
        shown: pandas.DataFrame,
        by: str | None = None,
        more: Sequence[str] = (),
    ) -> Drawing:
        what = [*self.what]
        for column, text in (("lr", "lr {:g}"), ("rank", "rank {}")):
            values = shown.loc[shown[column] != "", column].dropna().unique()
            what += [text.format(value) for value in values if len(values) == 1]
        sentences = [", ".join([*what, *more]), seeds_told(shown)]
        missing = absent(runs, set(shown["directory"]), by)
        missing += [
            f"{'/'.join(Path(directory).parts[-2:])} (broken)"
            for directory in self.lost.loc[self.lost["method"].isin(runs["method"]), "directory"]
        ]
        if missing:
            sentences.append("Not drawn: " + "; ".join(missing[:8]) + f"; {len(missing) - 8} more" * (len(missing) > 8))
        caption = ". ".join(sentences) + "."
        return Drawing(_file_name("_".join([self.name, *filter(None, name)])), figure, caption)


def _at_one_rate(runs: pandas.DataFrame) -> pandas.DataFrame:
    """The runs at the learning rate that most have; among equals, the one that serves them best.

    By what they reached on validation images where some were held out, else on those of the test.
    """
    if runs["lr"].nunique() < 2:
        return runs
    reached = runs["best_validation_accuracy"].astype(float).fillna(runs["test_accuracy"]).fillna(0.0)
    rates = reached.groupby(runs["lr"]).agg(["size", "mean"]).sort_values(["size", "mean"])
    return runs[runs["lr"] == rates.index[-1]]


def _by_rank(runs: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """The labelled runs of each rank with those that have none; of all ranks at once if only one method has any.

    Only panels with a finished run.
    """
    ranked = runs[runs["rank"] != ""]
    ranks = sorted(ranked["rank"].unique(), key=natural)
    together = len(ranks) < 2 or ranked["method"].nunique() < 2
    panels = [("", runs)] if together else [(rank, runs[runs["rank"].isin([rank, ""])]) for rank in ranks]
    for rank, panel in panels:
        if (panel["status"] == "finished").any():
            yield f"rank-{rank}" if rank else "", _labelled(panel)


def _labelled(runs: pandas.DataFrame, by_rank: bool = True) -> pandas.DataFrame:
    """Ordered by rank, with a column ``label``: the method, its rank where ranks differ, its variant.

    Without the rank it still says where ranks were cut while training: a line over sizes does not mix the two.
    """
    keys = [(natural(rank), variant) for rank, variant in zip(runs["rank"], runs["variant"], strict=True)]
    ordered = runs.iloc[sorted(range(len(runs)), key=keys.__getitem__)]
    if by_rank:
        ranks = ordered["rank"] if ordered.loc[ordered["rank"] != "", "rank"].nunique() > 1 else ""
    else:
        ranks = ordered["rank"].map(lambda rank: "adaptive" if adaptive(rank) else "")
    labels = ordered["method"] + " " + ranks + " " + ordered["variant"]
    return ordered.assign(label=[" ".join(label.split()) for label in labels])


def _footnote(drawing: Drawing) -> None:
    lines = textwrap.wrap(drawing.caption, 84)
    figure = drawing.figure
    figure.set_figheight(figure.get_figheight() + 0.1 * len(lines))
    figure.supxlabel("\n".join(lines), fontsize=5.5, x=0.01, ha="left")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # or each save would move things a little, and no two files would be the same


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)
