"""Tables of runs as a terminal shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...compression.comparison import Comparison
from ...compression.survey.report import Report, times
from ...device.machine import device_name
from ...results.record import Summary
from ...tensor.rank import Budget, Rank

if TYPE_CHECKING:
    import pandas
    import torch


def print_outcome(summaries: Mapping[Path, Summary], names: Mapping[Path, str]) -> None:
    """The runs of a command, by the names that tell several apart, and the directory where each one lies."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    several = len(summaries) > 1
    for title in ("run",) if several else ("method", "rank"):
        table.add_column(title)
    for title in ("parameters", "compression", "MACs", "test accuracy", "best", "s/epoch", "status"):
        table.add_column(title, justify="right")
    for directory, summary in summaries.items():
        named = (escape(names[directory]),) if several else (summary.method, summary.rank)
        shown = (
            *((name, "{}") for name in named), (summary.parameters, "{:,}"),
            (summary.compression_ratio, "{:.2f}x"), (summary.macs, "{:,}"), (summary.test_accuracy, "{:.2%}"),
            (summary.best_test_accuracy, "{:.2%}"), (summary.train_seconds_per_epoch, "{:.2f}"), (summary.status, "{}"),
        )  # fmt: skip
        table.add_row(*("-" if value is None else form.format(value) for value, form in shown))
    console = Console()
    console.width = max(console.width, 110)
    console.print()
    console.print(table)
    for directory in summaries:
        console.print(str(directory), highlight=False, soft_wrap=True)


def print_runs(runs: pandas.DataFrame) -> None:
    """The rows of ``runs.read_runs``; their directories say the data set, the network and the seed.

    Other choices stand at the end where not all runs of that data set and network have made them.
    """
    words = [set(setting.split(" ")) for setting in runs["setting"]]
    networks = list(zip(runs["dataset"], runs["arch"], strict=True))
    shared: dict[tuple[str, str], set[str]] = {}
    for name, own in zip(networks, words, strict=True):
        shared[name] = shared.get(name, own) & own
    settings = [" ".join(sorted(own - shared[name])) for own, name in zip(words, networks, strict=True)]
    shown: dict[str, tuple[str, Callable[[Any], str]]] = {
        "method": ("method", str), "variant": ("variant", str), "rank": ("rank", str), "lr": ("lr", "{:g}".format),
        "status": ("status", str), "epochs_done": ("done", "{:.0f}".format), "epochs": ("epochs", "{:.0f}".format),
        "parameters": ("parameters", "{:,.0f}".format), "compression_ratio": ("smaller", "{:.1f}x".format),
        "test_accuracy": ("accuracy", "{:.2%}".format), "train_seconds_per_epoch": ("s/epoch", "{:.2f}".format),
        "directory": ("directory", str), **({"setting": ("setting", str)} if any(settings) else {}),
    }  # fmt: skip
    out = Table(box=None, header_style="bold", pad_edge=False)
    for title, _ in shown.values():
        out.add_column(title, no_wrap=True, overflow="ignore")
    for row in runs.assign(setting=settings).to_dict("records"):
        out.add_row(*("-" if row[c] is None or row[c] != row[c] else show(row[c]) for c, (_, show) in shown.items()))
    console = Console(soft_wrap=True)
    console.width = 10_000  # a line a run, whatever the terminal: directories are there to be copied
    console.print(out)


def print_report(report: Report, rank: Rank | None = None) -> None:
    """Print what became of each layer, and, if ``rank`` is a budget, what it asks for and what is reached."""
    print(report)
    counts = report.counts
    if isinstance(rank, Budget) and any(layer["ranks"] for layer in counts["layers"]):
        total, dense = ("macs", "dense_macs") if rank.kind == "macs" else ("parameters", "dense_parameters")
        verb = "training starts with" if rank.adaptive else "reached"
        print(f"rank={rank}: {verb} {rank.said(counts[total], counts[dense])}")


def print_comparison(comparison: Comparison, device: torch.device) -> None:
    """A line for each quantity: before, after, and what became of it; of times the medians and their quartiles."""
    before, after = comparison.before, comparison.after
    rows = [
        (title, f"{old:,}", f"{new:,}", times(old / new, *words) if old and new else "")
        for title, old, new, *words in (
            ("parameters", before.parameters, after.parameters, "fewer", "more"),
            ("MACs per image", before.macs, after.macs, "fewer", "more"),
            ("bytes", before.bytes, after.bytes, "smaller", "larger"),
        )
    ]
    for batch, pairs in comparison.times.items():
        old, new = map(_spread, (pairs.ours_ms, pairs.rival_ms), pairs.spreads_ms)
        rows.append((f"ms, batch {batch}", old, new, times(pairs.ratio, "faster", "slower")))
    if comparison.accuracies is not None:
        was, now = comparison.accuracies
        rows.append(("test accuracy", f"{was:.2%}", f"{now:.2%}", f"{100 * (now - was):+.2f} points"))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column(before.name, justify="right")
    table.add_column("")
    table.add_column(after.name, justify="right")
    table.add_column("", justify="right")
    for title, old, new, change in rows:
        table.add_row(title, old, "=>", new, change)
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)
    console.print(f"times: {device_name(device)}; medians and quartiles, each side in turn", highlight=False)


def _spread(median: float, quartiles: tuple[float, float]) -> str:
    digits = 3 if median < 1 else 2 if median < 10 else 1
    low, high = (f"{value:,.{digits}f}" for value in quartiles)
    return f"{median:,.{digits}f} ({low} to {high})"
