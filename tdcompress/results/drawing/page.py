"""Results for people: report.html, one page with tables and figures, and report.md, the tables alone."""

from __future__ import annotations

import io
import re
from pathlib import Path
from shlex import quote
from typing import Any

import matplotlib
import pandas
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from ...device.files import write_text
from ...tensor.errors import ConfigError
from ...tensor.formats import BASELINE
from ..identity import whole_key
from ..rows import natural
from ..tables import read_results, write_results
from .figures import Comparison, comparisons
from .plots import INK

COLUMNS = (
    "method", "rank", "lr", "parameters", "compression", "MACs", "test accuracy (%)", "best (%)", "s/epoch", "device",
)  # fmt: skip


TEXT = ("method", "rank", "device")  # aligned left


def write_report(results_dir: Path | str) -> list[Path]:
    """Write report.html, report.md, summary.csv and metrics.csv into ``results_dir``; the files written.

    Raises ``ConfigError`` when no run has finished.
    """
    runs, epochs = read_results(results_dir)
    parts = [_part(comparison, epochs) for comparison in comparisons(runs)]
    if not parts:
        raise ConfigError(f"no finished runs in {Path(results_dir)}: tdc train -m method=tt,dense makes two")
    template = Environment(loader=PackageLoader("tdcompress.results.drawing"), autoescape=True).get_template(
        "report.html"
    )
    finished = int((runs["status"] == "finished").sum())
    pages = {
        "report.html": template.render(parts=parts, runs=len(runs), finished=finished, text=TEXT),
        "report.md": "\n".join(_markdown(part) for part in parts),
    }
    for name, text in pages.items():
        write_text(Path(results_dir) / name, text)
    return [*(Path(results_dir) / name for name in pages), *write_results(results_dir, runs, epochs)]


def _part(comparison: Comparison, epochs: pandas.DataFrame) -> dict[str, Any]:
    runs = comparison.runs
    figures = [{"svg": _svg(drawn.figure), "caption": drawn.caption} for drawn in comparison.drawings(epochs)]
    versions = [f"{name} {', '.join(sorted(runs[name].dropna().unique()))}" for name in ("torch", "tdcompress")]
    return {
        "name": comparison.name,
        "title": ", ".join(comparison.what),
        "columns": COLUMNS,
        "rows": _rows(runs),
        "commands": _commands(runs),
        "setting": runs.iloc[0]["setting"].replace(" ", "\n"),
        "versions": ", ".join(versions) if runs["torch"].notna().any() else "",
        "figures": figures,
    }


def _rows(runs: pandas.DataFrame) -> list[list[str]]:
    """The table's cells: a row for each method, rank, learning rate and device, over its seeds."""
    groups = runs.groupby(["method", "variant", "rank", "lr", "device"], dropna=False)
    rows = []
    for (method, variant, rank, lr, device), part in sorted(groups, key=lambda item: _order(*item[0])):
        first, done = part.iloc[0], part[part["status"] == "finished"]
        counts = part.loc[part["status"] != "finished", "status"].value_counts()
        lost = ", ".join(f"{count} {status}" for status, count in counts.items())
        rows.append(
            [
                f"{method} {variant}".strip(),
                rank or "-",
                "-" if lr != lr else f"{lr:g}",
                f"{first['parameters']:,.0f}",
                f"{first['compression_ratio']:.1f}x",
                f"{first['macs']:,.0f}",
                _mean(done["test_accuracy"]) + (f" ({lost})" if lost else ""),
                _best(done),
                "-" if done.empty else f"{done['train_seconds_per_epoch'].mean():.2f}",
                device,
            ]
        )
    return rows


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


def _commands(runs: pandas.DataFrame) -> list[str]:
    """The sweeps that make these runs, plain methods in one; what their settings share besides is listed apart."""
    plain = (runs["variant"] == "") & ~runs["method"].str.contains("+", regex=False)
    own = runs[~plain].groupby(["method", "variant"])
    return [_command(part) for part in ([runs[plain]] if plain.any() else []) + [part for _, part in own]]


def _command(runs: pandas.DataFrame) -> str:
    words = ["tdc train -m"]
    for column in ("dataset", "arch", "method", "rank", "lr", "epochs", "batch_size", "seed"):
        values = sorted({value for value in runs[column].dropna() if value != ""}, key=lambda v: natural(str(v)))
        text = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        if column == "method":  # tt+cp_conv is method=tt method.conv=cp
            text, *kinds = text.split("+")
            kinds = [f"method.{kind}={name}" for name, _, kind in (part.rpartition("_") for part in kinds)]
            text = " ".join([text, *kinds, *(quote(whole_key(word)) for word in runs.iloc[0]["variant"].split())])
        words += [f"{column}={text}"] if text else []
    return " ".join(words)


def _markdown(part: dict[str, Any]) -> str:
    ruler = ["---" if title in TEXT else "---:" for title in part["columns"]]
    table = [part["columns"], ruler, *part["rows"]]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    made = [*part["commands"], *(["with", part["setting"]] if part["setting"] else [])]
    return "\n".join([f"### {part['title']}", "", *lines, "", "```", *made, "```", ""])


def _svg(figure: Figure) -> str:
    """A figure as an element of a page: its ink takes the page's colour, light or dark."""
    text = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tdcompress"}):
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    return re.sub(r'<g id="[^"]*"', "<g", svg).replace(INK, "currentColor")
