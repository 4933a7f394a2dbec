"""Runs as a table for people, a row for each network over its seeds."""

from __future__ import annotations

from typing import Any

import pandas

from ....tensor.formats import BASELINE
from ...rows import natural
from ..comparison import Comparison
from .command import commands

COLUMNS = (
    "method", "rank", "lr", "parameters", "compression", "MACs", "test accuracy (%)", "best (%)", "s/epoch", "device",
)  # fmt: skip
TEXT = ("method", "rank", "device")  # aligned left


def rows(runs: pandas.DataFrame) -> list[list[str]]:
    """The table's cells: a row for each method, rank, learning rate and device, over its seeds."""
    groups = runs.groupby(["method", "variant", "rank", "lr", "device"], dropna=False)
    found = []
    for (method, variant, rank, lr, device), part in sorted(groups, key=lambda item: _order(*item[0])):
        done = part[part["status"] == "finished"]
        sizes = part if done.empty else done
        counts = part.loc[part["status"] != "finished", "status"].value_counts()
        lost = ", ".join(f"{count} {status}" for status, count in counts.items())
        found.append(
            [
                f"{method} {variant}".strip(),
                rank or "-",
                "-" if lr != lr else f"{lr:g}",
                _number(sizes["parameters"], "{:,.0f}"),
                _number(sizes["compression_ratio"], "{:.1f}x"),
                _number(sizes["macs"], "{:,.0f}"),
                _mean(done["test_accuracy"]) + (f" ({lost})" if lost else ""),
                _best(done),
                _number(done["train_seconds_per_epoch"], "{:.2f}"),
                device,
            ]
        )
    return found


def _order(method: str, variant: str, rank: str, lr: float, device: str) -> tuple[Any, ...]:
    return method != BASELINE, method, variant, natural(rank), lr, device


def _mean(accuracies: pandas.Series[float]) -> str:
    count = accuracies.count()
    if not count:
        return "-"
    spread = f" ± {100 * accuracies.std():.2f} ({count})" if count > 1 else ""
    return f"{100 * accuracies.mean():.2f}{spread}"


def _number(known: pandas.Series[float], form: str) -> str:
    return form.format(known.mean()) if known.notna().any() else "-"


def _best(done: pandas.DataFrame) -> str:
    """What the epochs chosen by validation reach, or else the highest of all epochs of such networks, and seeds."""
    if done["best_epoch"].notna().any():
        return _mean(done["best_test_accuracy"])
    return "-" if done.empty else f"{100 * done['best_test_accuracy'].max():.2f}"


def markdown(comparison: Comparison) -> str:
    """The table of a comparison's runs and the commands that make them, for report.md."""
    runs = comparison.runs
    ruler = ["---" if title in TEXT else "---:" for title in COLUMNS]
    table = [COLUMNS, ruler, *rows(runs)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([f"### {', '.join(comparison.what)}", "", *lines, "", "```", *commands(runs), "```", ""])
