"""Runs as a table for people, a row for each network over its seeds, and the commands that make them."""

from __future__ import annotations

from shlex import quote
from typing import Any

import pandas

from ....tensor.formats import BASELINE
from ...identity import whole_key
from ...rows import natural
from ..comparison import Comparison

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
                f"{sizes['parameters'].mean():,.0f}",
                f"{sizes['compression_ratio'].mean():.1f}x",
                f"{sizes['macs'].mean():,.0f}",
                _mean(done["test_accuracy"]) + (f" ({lost})" if lost else ""),
                _best(done),
                "-" if done.empty else f"{done['train_seconds_per_epoch'].mean():.2f}",
                device,
            ]
        )
    return found


def _order(method: str, variant: str, rank: str, lr: float, device: str) -> tuple[Any, ...]:
    return method != BASELINE, method, variant, natural(rank), lr, device


def _mean(accuracies: pandas.Series[float]) -> str:
    if accuracies.empty:
        return "-"
    spread = f" ± {100 * accuracies.std():.2f} ({len(accuracies)})" if len(accuracies) > 1 else ""
    return f"{100 * accuracies.mean():.2f}{spread}"


def _best(done: pandas.DataFrame) -> str:
    """What the epochs chosen by validation reach, or else the highest of all epochs and seeds."""
    if done["best_epoch"].notna().any():
        return _mean(done["best_test_accuracy"])
    return "-" if done.empty else f"{100 * done['best_test_accuracy'].max():.2f}"


def commands(runs: pandas.DataFrame) -> list[str]:
    """The sweeps that make these runs, plain methods in one; what their settings share besides is listed apart."""
    plain = (runs["variant"] == "") & ~runs["method"].str.contains("+", regex=False)
    own = runs[~plain].groupby(["method", "variant"])
    return [_command(part) for part in ([runs[plain]] if plain.any() else []) + [part for _, part in own]]


def _command(runs: pandas.DataFrame) -> str:
    words = ["tdc train -m"]
    for column in ("dataset", "arch", "method", "rank", "lr", "epochs", "batch_size", "seed"):
        values = sorted({value for value in runs[column].dropna() if value != ""}, key=lambda v: natural(str(v)))
        if f"{column}.target._target_=" in runs.iloc[0]["setting"]:  # which says it
            continue
        text = ",".join(_number(value) if isinstance(value, float) else str(value) for value in values)
        if column == "arch":  # torchvision-resnet50 is arch=torchvision arch.model=resnet50
            text = text.replace("-", " arch.model=", 1)
        if column == "method":  # tt+cp_conv is method=tt method.conv=cp
            text, *kinds = text.split("+")
            kinds = [f"method.{kind}={name}" for name, _, kind in (part.rpartition("_") for part in kinds)]
            text = " ".join([text, *kinds, *(quote(whole_key(word)) for word in runs.iloc[0]["variant"].split())])
        words += [f"{column}={text}"] if text else []
    return " ".join(words)


def _number(value: float) -> str:
    """As a command line takes it, all digits of it."""
    return str(int(value)) if value.is_integer() else repr(float(value))


def markdown(comparison: Comparison) -> str:
    """The table of a comparison's runs and the commands that make them, for report.md."""
    runs = comparison.runs
    ruler = ["---" if title in TEXT else "---:" for title in COLUMNS]
    table = [COLUMNS, ruler, *rows(runs)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    setting = runs.iloc[0]["setting"].replace(" ", "\n")
    made = [*commands(runs), *(["with", setting] if setting else [])]
    return "\n".join([f"### {', '.join(comparison.what)}", "", *lines, "", "```", *made, "```", ""])
