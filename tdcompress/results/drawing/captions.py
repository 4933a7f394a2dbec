"""What a figure's caption says of its runs: their seeds, and those that are missing."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from ..rows import adaptive, natural
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


def absent(runs: pandas.DataFrame, shown: set[str], by: str | None) -> list[str]:
    """What one would look for in a figure of ``runs`` and not find, each with the reason.

    Of every label the seeds that most of them have; of plain methods also every value of ``by`` (rank, lr).
    """
    value = runs[by].map("{:g}".format if by == "lr" else str) if by else runs["label"].map(lambda _: "")
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for label, at, seed, status, directory in zip(
        runs["label"], value, runs["seed"], runs["status"], runs["directory"], strict=True
    ):
        cells.setdefault((label, at), {})[int(seed)] = "" if directory in shown else status
    plain = runs[(runs["variant"] == "") & ((runs["rank"] != "") | (by != "rank"))]
    for label, rows in plain.groupby("label", sort=False):
        alike = plain["rank"].map(adaptive) == adaptive(rows["rank"].iloc[0])
        for at in sorted(set(value[plain.index[alike]]), key=natural):
            cells.setdefault((str(label), at), {})
    seeds = [seed for found in cells.values() for seed in found]
    usual = {seed for seed in seeds if 2 * seeds.count(seed) > sum(map(bool, cells.values()))}
    told = []
    for (label, at), found in cells.items():
        reasons = {**dict.fromkeys(usual, "no run"), **found}
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
