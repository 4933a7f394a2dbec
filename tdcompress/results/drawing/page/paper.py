"""Tables for a paper, in LaTeX with booktabs or in markdown: mean and standard deviation over seeds, best in bold."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....device.files import write_text
from ....tensor.errors import ConfigError
from ...answers.networks import Network, networks
from ...tables import read_results
from ..comparison import Comparison, comparisons
from ..words import rank as rank_said
from ..words import said
from .command import commands

FILES = {"latex": "tables.tex", "markdown": "tables.md"}
_ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


@dataclass(frozen=True)
class Table:
    """A comparison's networks, a row each.

    ``bold``: the rows whose accuracy, in the column ``accuracy``, is; ``commands``: what makes them.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    bold: set[int]
    accuracy: int
    commands: list[str]


def write_tables(results_dir: Path | str, form: str, out: Path | str | None = None) -> Path:
    """Write the tables of all runs as ``form``, one of ``FILES``, into ``out`` or ``results_dir``; the file written.

    Raises ``ConfigError`` when no run has finished.
    """
    runs, _ = read_results(results_dir)
    found = [table(comparison) for comparison in comparisons(runs)]
    if not found:
        raise ConfigError(f"no finished runs in {Path(results_dir)}: tdc train -m method=tt,dense makes two")
    path = Path(results_dir if out is None else out) / FILES[form]
    write_text(path, _latex(found) if form == "latex" else "\n".join(map(_markdown, found)))
    return path


def table(comparison: Comparison) -> Table:
    """The networks of one comparison that have a finished run; the learning rate only where it differs."""
    found = networks(comparison.runs)
    rates = len({one.lr for one in found}) > 1
    rows = [
        [
            " ".join(filter(None, (one.method, said(one.variant)))),
            rank_said(one.rank) or "-",
            *([f"{one.lr:g}"] if rates else []),
            _count(one, "parameters"),
            _count(one, "compression_ratio", "{:.1f}x"),
            _count(one, "macs"),
            _accuracy(one),
            ", ".join([str(len(one.accuracies)), *(f"{count} {status}" for status, count in one.lost.items())]),
        ]
        for one in found
    ]
    columns = ["method", "rank", *(["lr"] if rates else [])]
    columns += ["parameters", "compression", "MACs per image", "test accuracy (%)", "seeds"]
    bold = {place for place, one in enumerate(found) if _best(one, found)}
    title = ", ".join(comparison.what) + "." + " Bold: the most accurate of each rank." * bool(bold)
    return Table(title, columns, rows, bold, len(columns) - 2, commands(comparison.runs))


def _best(one: Network, found: Sequence[Network]) -> bool:
    """Whether no other network of its rank is more accurate, and there is another."""
    others = [other for other in found if other is not one and other.rank == one.rank]
    return bool(others) and not one.baseline and one.mean >= max(other.mean for other in others)


def _count(network: Network, column: str, form: str = "{:,.0f}") -> str:
    values = network.done[column].dropna()
    return form.format(values.mean()) if len(values) else "-"


def _accuracy(network: Network) -> str:
    spread = "" if math.isnan(network.deviation) else f" ± {100 * network.deviation:.2f}"
    return f"{100 * network.mean:.2f}{spread}"


def _numbers(one: Table) -> list[bool]:
    """Which columns are of numbers, and aligned right."""
    return [title not in ("method", "rank") for title in one.columns]


def _marked(one: Table, mark: str) -> list[list[str]]:
    """The rows, with the accuracies that are bold in ``mark``."""
    return [
        [mark.format(cell) if place in one.bold and column == one.accuracy else cell for column, cell in enumerate(row)]
        for place, row in enumerate(one.rows)
    ]


def _markdown(one: Table) -> str:
    ruler = ["---:" if number else "---" for number in _numbers(one)]
    cells = [one.columns, ruler, *([cell.replace("|", "\\|") for cell in row] for row in _marked(one, "**{}**"))]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([one.title, "", *lines, "", "```", *one.commands, "```", ""])


def _latex(tables: Sequence[Table]) -> str:
    lines = [r"% \usepackage{booktabs}"]
    for one in tables:
        escaped = Table(**{**vars(one), "rows": [[_escaped(cell) for cell in row] for row in one.rows]})
        rows = [[_escaped(title) for title in one.columns], *_marked(escaped, r"\textbf{{{}}}")]
        head, *body = (f"{' & '.join(row)} \\\\" for row in rows)
        lines += [
            *("", *(f"% {command}" for command in one.commands)),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(one.title)}}}",
            rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in _numbers(one))}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    """Text as LaTeX prints it, whatever characters it has."""
    return re.sub(r"[\\~^±]|[&%$#_{}]", lambda found: _ESCAPED.get(found[0], f"\\{found[0]}"), text)
