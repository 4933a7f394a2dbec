"""What a figure's caption says of its runs: their seeds, and those that are missing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas

from ..rows import OF_FILES, adaptive, natural
from .comparison import shared_variant
from .quantities import Quantity
from .words import rank


def seeds_told(shown: pandas.DataFrame) -> str:
    cells = [tuple(sorted(rows["seed"].unique())) for _, rows in shown.groupby(["label", "rank", "lr"], dropna=False)]
    common = max(set(cells), key=lambda seeds: (cells.count(seeds), seeds))
    told = f"S{_seeds(common)[1:]}" if len(common) == 1 else f"Mean and range of {_seeds(common)}"
    return told + (" (of a few lines others)" if set(cells) != {common} else "")


def _seeds(seeds: Sequence[float]) -> str:
    """Seeds 0-2, 7."""
    parts: list[list[int]] = []
    for seed in sorted({int(seed) for seed in seeds}):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    text = ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
    return f"seed{'s' if len(seeds) > 1 else ''} {text}"


def absent(
    runs: pandas.DataFrame, shown: set[str], by: str | None, lost: Collection[tuple[str, int]] = ()
) -> list[str]:
    """What one would look for in a figure of ``runs`` and not find, each with the reason.

    Of every label the seeds that most of them have, but those ``lost`` of its method, of which more is not known; of
    methods without choices of their own also every value of ``by`` (rank, lr).
    """
    value = runs[by].map("{:g}".format if by == "lr" else str) if by else runs["label"].map(lambda _: "")
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for label, at, seed, status, directory in zip(
        runs["label"], value, runs["seed"], runs["status"], runs["directory"], strict=True
    ):
        cells.setdefault((label, at), {})[int(seed)] = "" if directory in shown else status
    shared = set(shared_variant(runs))
    own = runs["variant"].map(lambda words: bool(set(words.split()) - shared))
    plain = runs[~own & ((runs["rank"] != "") | (by != "rank"))]
    methods = dict(zip(runs["label"], runs["method"], strict=True))
    for label, rows in plain.groupby("label", sort=False):
        alike = plain["rank"].map(adaptive) == adaptive(rows["rank"].iloc[0])
        for at in sorted(set(value[plain.index[alike]]), key=natural):
            cells.setdefault((str(label), at), {})
    seeds = [seed for found in cells.values() for seed in found]
    usual = {seed for seed in seeds if 2 * seeds.count(seed) > sum(map(bool, cells.values()))}
    told = []
    for (label, at), found in cells.items():
        missing = [seed for seed in usual if (methods[label], seed) not in lost]
        reasons = {**dict.fromkeys(missing, "no run"), **found}
        # A label says by itself where ranks are cut.
        value_said = rank(at).removeprefix("adaptive ") if by == "rank" else at
        name = " ".join(filter(None, (label, "lr" if by == "lr" else "", value_said)))
        if not found:
            told.append(f"{name} (no run)")
            continue
        for reason in sorted(set(reasons.values()) - {""}):
            of = [seed for seed, why in reasons.items() if why == reason]
            told.append(f"{name} {_seeds(of)} ({reason})" if len(of) < len(reasons) else f"{name} ({reason})")
    return told


def with_reasons(
    runs: pandas.DataFrame, drawn: pandas.Series[bool], quantities: Sequence[Quantity]
) -> pandas.DataFrame:
    """The same, where finished runs that are not ``drawn`` have the reason for it as their status.

    That one of the ``quantities`` is not known of them, or was had where it cannot be compared.
    """
    missing = ~drawn & (runs["status"] == "finished")
    files = any(one.column in OF_FILES for one in quantities)
    status = runs["status"].mask(missing, "exported otherwise" if files else "on another device")
    for one in quantities:
        if one.column in runs:
            unknown = "not exported" if one.column in OF_FILES else f"no {one.title}"
            status = status.mask(missing & runs[one.column].isna(), unknown)
    return runs.assign(status=status)


def told_of_cost(cost: Quantity, alike: Sequence[str], shown: pandas.DataFrame, known: pandas.DataFrame) -> list[str]:
    """Of a cost by which only some runs can be compared: what these agree in, and the networks that lack it."""
    if not alike:
        return []
    cells = [list(dict.fromkeys(zip(runs["label"], runs["rank"], strict=True))) for runs in (shown, known)]
    lacking = [" ".join(filter(None, (label, rank(at)))) for label, at in cells[0] if (label, at) not in cells[1]]
    title = f"{cost.title[0].upper()}{cost.title[1:]}"
    some = ", of some seeds" if len(known) < len(shown) else ""
    more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
    without = f"; without {', '.join(lacking[:4])}{more}" if lacking else ""
    return [f"{title}: {', '.join(alike)}{some}{without}"]
