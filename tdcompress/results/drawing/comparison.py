"""Runs that can be compared: the groups of them, their names in words and in files, their labels in figures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

import pandas

from ...tensor.formats import BASELINE
from ..rows import adaptive, natural
from . import words

SAME = ["dataset", "arch", "epochs", "batch_size", "setting"]  # runs that differ here are never in one figure
MOST_LINES = 10  # that can be told apart in a figure


def comparisons(runs: pandas.DataFrame) -> list[Comparison]:
    """The runs in groups that can be compared; only groups with a finished run.

    Of runs that differ in nothing but their directory all but one are left out with a warning.
    """
    broken = runs[runs["status"] == "broken"]
    known = _once(runs[runs["status"] != "broken"])
    groups = [group for _, group in known.groupby(SAME, dropna=False) if (group["status"] == "finished").any()]
    found = [Comparison(group, broken) for group in groups]
    for one in found:
        one.tell_apart([other for other in found if other is not one and other.subject == one.subject])
    return found


def _once(runs: pandas.DataFrame) -> pandas.DataFrame:
    """One run of each method, rank, learning rate and seed, a finished one where there is one."""
    ordered = runs.iloc[(runs["status"] != "finished").argsort(kind="stable")]
    again = ordered.duplicated([*SAME, "method", "variant", "rank", "lr", "seed"])
    for directory in ordered.loc[again, "directory"]:
        warnings.warn(f"{directory} is left out: the same run is there in another directory", stacklevel=3)
    return runs.drop(index=ordered.index[again])


class Comparison:
    """Runs that agree in all but method, rank, learning rate and seed.

    ``subject``: network and data set, as people call them; ``facts``: what else the runs share, in words; ``apart``:
    those that not all runs of this subject share; ``root``: the folders to the data, if these were chosen; ``title``:
    the subject and as few of these as will do, ``name`` the same for files; ``lost``: broken runs, perhaps some of
    these.
    """

    def __init__(self, runs: pandas.DataFrame, broken: pandas.DataFrame) -> None:
        first = runs.iloc[0]
        self.runs = runs
        self.lost = broken[(broken["dataset"] == first["dataset"]) & (broken["arch"] == first["arch"])]
        label = next(filter(None, runs["dataset_label"]), "")
        self.dataset, self.arch = words.dataset(first["dataset"], label, first["setting"]), words.spelled(first["arch"])
        self.subject = f"{self.arch} on {self.dataset}"
        self.name = words.slug(f"{self.arch} {self.dataset}")
        self.epochs = "" if first["epochs"] != first["epochs"] else f"{first['epochs']:.0f} epochs"
        batch = "" if first["batch_size"] != first["batch_size"] else f"batch size {first['batch_size']:.0f}"
        self.setting = words.phrases(first["setting"])
        self.facts = list(filter(None, [self.epochs, batch, *self.setting.values()]))
        self.root = [part for part in PurePosixPath(words.root(first["setting"])).parts if part != "/"]
        self.apart: list[str] = []
        self.title = self.subject

    def tell_apart(self, others: list[Comparison]) -> None:
        """Note what sets this one apart from the ``others`` of its subject."""
        self.apart = [fact for fact in self.facts if any(fact not in other.facts for other in others)]
        left, named = others, []
        for fact in self.apart:
            alike = [other for other in left if fact in other.facts]
            if len(alike) < len(left):
                named.append(fact)
                left = alike
        own = [part for part in self.root if any(part not in other.root for other in left)]
        named += [f"in {' '.join(own)}"] * bool(own)  # folders of one name
        self.title = ", ".join([self.subject, *named])
        self.name = "-".join([self.name, *map(words.slug, named)])

    @property
    def told(self) -> list[str]:
        """Network, data set and all facts, each on its own."""
        return [self.arch, self.dataset, *self.facts]

    @property
    def what(self) -> list[str]:
        """What these runs are, for a caption: the optimizer's name, its other words only where it sets them apart."""
        less = [
            phrase
            for word, phrase in self.setting.items()
            if word.startswith("optim.") and not word.startswith("optim.optimizer._target_=")
        ]
        return [self.subject, *(fact for fact in self.facts if fact in self.apart or fact not in less)]


def at_one_rate(runs: pandas.DataFrame) -> pandas.DataFrame:
    """The runs at the learning rate at which most have finished; among equals, the one that serves them best.

    By what they reached on validation images where some were held out, else on those of the test. Networks that have
    none at this rate are there at others, which their status then says.
    """
    if runs["lr"].nunique() < 2:
        return runs
    done = runs[runs["status"] == "finished"]
    reached = done["best_validation_accuracy"].astype(float).fillna(done["test_accuracy"]).fillna(0.0)
    rates = reached.groupby(done["lr"]).agg(["size", "mean"]).sort_values(["size", "mean"])
    kept = runs[runs["lr"] == rates.index[-1]]
    network = ["method", "variant", "rank"]
    others = runs[~runs.set_index(network).index.isin(kept.set_index(network).index)]
    tried = others.groupby(network)["lr"].transform(
        lambda values: ", ".join(f"{rate:g}" for rate in sorted(set(values)))
    )
    return pandas.concat([kept, others.assign(status="learning rate " + tried)]) if len(others) else kept


def panels(runs: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """The runs that one figure of lines shows, labelled, and what sets each figure apart, in words.

    Those of each rank with those that have none, of all ranks at once if only one method has any; where that makes more
    lines than can be read, those of each method, with the baseline. Only panels with a finished run.
    """
    ranked = runs[runs["rank"] != ""]
    ranks = sorted(ranked["rank"].unique(), key=natural)
    together = len(ranks) < 2 or ranked["method"].nunique() < 2
    parts = [("", runs)] if together else [(rank, runs[runs["rank"].isin([rank, ""])]) for rank in ranks]
    for rank, part in parts:
        panel = labelled(part)
        methods = sorted(set(panel["method"]) - {BASELINE})
        split = panel["label"].nunique() > MOST_LINES and len(methods) > 1
        for method in methods if split else [""]:
            shown = panel[panel["method"].isin([method, BASELINE])] if split else panel
            if (shown["status"] == "finished").any():
                yield " ".join(filter(None, [words.rank(rank), method])), shown


def labelled(runs: pandas.DataFrame, with_rank: bool = True) -> pandas.DataFrame:
    """Ordered by rank, with a column ``label``: the method, its rank where ranks differ, its own variant.

    Without the rank it still says where ranks were cut while training: a line over sizes does not mix the two.
    """
    keys = [(natural(rank), variant) for rank, variant in zip(runs["rank"], runs["variant"], strict=True)]
    ordered = runs.iloc[sorted(range(len(runs)), key=keys.__getitem__)]
    if with_rank:
        several = ordered.loc[ordered["rank"] != "", "rank"].nunique() > 1
        ranks = ordered["rank"] if several else ordered["rank"].map(lambda _: "")
    else:
        ranks = ordered["rank"].map(lambda rank: "adaptive" if adaptive(rank) else "")
    shared = shared_variant(runs)
    own = [" ".join(word for word in variant.split() if word not in shared) for variant in ordered["variant"]]
    parts = zip(ordered["method"], ranks, map(words.said, own), strict=True)
    return ordered.assign(label=[" ".join(filter(None, part)) for part in parts])


def shared_variant(runs: pandas.DataFrame) -> list[str]:
    """The words of the variant that all of these ``runs`` have but the baseline's."""
    variants = [variant.split() for variant in runs.loc[runs["method"] != BASELINE, "variant"]]
    return [word for word in variants[0] if all(word in others for others in variants)] if variants else []
