"""``tdc runs diff``: in which keys two runs differ, and both their curves in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas

from ...config.words import choice, read
from ...device.files import RunError
from ...results.answers.pair import keys_that_differ, outcomes_that_differ
from ...results.drawing import plots, words
from ...results.drawing.catalogue import LEARN, Drawing
from ...results.drawing.figures import EXTENSIONS, write
from ...results.drawing.look import Look
from ...results.drawing.quantities import quantity
from ...results.record import Summary, read_summary
from ...results.rows import read_metrics
from ...results.terminal import show
from ...tensor.errors import ConfigError

_ACCURACY = "test_accuracy"
_NAMED = ("method.format", "rank", "seed")  # what a run's label says


@dataclass(frozen=True)
class DiffOptions:
    """``format``: the kinds of file that the figure is written as. ``out``: its folder; figures/ of the first run's
    results unless given.
    """

    format: tuple[str, ...] = choice(("png",), EXTENSIONS)
    out: str | None = None


def run(arguments: Sequence[str]) -> None:
    """Print the keys that differ and what became of the runs; draw the curves, and print the files.

    ``arguments``: the folders of two runs, then words. Raises ``ConfigError`` for other ones.
    """
    if len(arguments) < 2:
        raise ConfigError("tdc runs diff needs the folders of two runs: tdc runs diff RUN RUN")
    options = read(arguments[2:], DiffOptions)
    folders = [Path(argument) for argument in arguments[:2]]
    summaries = [_summary(folder) for folder in folders]
    for name, folder in zip("AB", folders, strict=True):
        print(f"{name}  {folder}")
    keys, outcomes = keys_that_differ(*summaries), outcomes_that_differ(*summaries)
    for title, found in (("keys that differ", keys), ("what became of them", outcomes)):
        if found:
            show([{"key": key, "A": a, "B": b} for key, (a, b) in found.items()], ("key", "A", "B"), title)
        else:
            print(f"{title}: none")
    drawing = _drawing(folders, summaries, keys)
    if drawing is None:
        print("no figure: one of them has no epoch that was tested")
        return
    out = Path(options.out) if options.out is not None else _results(folders[0]) / "figures"
    for path in write(drawing, Look(), out, options.format):
        print(path)


def _summary(folder: Path) -> Summary:
    summary = read_summary(folder)
    if summary is None or not summary.config:
        raise RunError(f"{folder} is no run whose summary.json can be read")
    return summary


def _results(run: Path) -> Path:
    """The folder above the runs/ that the run is in, or else the one that it is in."""
    above = run.parents if len(run.parents) > 4 else run.absolute().parents
    return above[4] if len(above) > 4 and above[3].name == "runs" else run.parent


def _drawing(
    folders: Sequence[Path], summaries: Sequence[Summary], keys: Mapping[str, tuple[str, str]]
) -> Drawing | None:
    """Test accuracy over epochs of both runs; None if one has none."""
    names = [" ".join(filter(None, (one.method, one.rank, f"seed {one.seed}"))) for one in summaries]
    others = [key for key in keys if key not in _NAMED][:2]
    words_of = [[f"{key.rpartition('.')[2]}={keys[key][place]}" for key in others] for place in (0, 1)]
    labels = [" ".join([f"{a}: {name}", *own]) for a, name, own in zip("AB", names, words_of, strict=True)]
    runs = pandas.DataFrame(
        {
            "label": labels,
            "method": [summary.method for summary in summaries],
            "seed": [summary.seed for summary in summaries],
            "directory": [str(folder) for folder in folders],
        }
    )
    curves = read_metrics(runs).dropna(subset=[_ACCURACY])
    if curves["label"].nunique() < 2:
        return None
    subjects = {f"{words.spelled(str(one.arch))} on {words.spelled(str(one.dataset))}" for one in summaries}
    name = "-".join(["diff", *map(words.slug, [*names, *others])])
    differ = f"They differ in {', '.join(keys)}." if keys else "They differ in no key."
    plot = partial(plots.over_epochs, curves, quantity(_ACCURACY), x="epoch", switches={})
    return Drawing(name, LEARN, " and ".join(sorted(subjects)), differ, plot)
