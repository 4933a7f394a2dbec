"""``tdc report``: tables and figures as one page, and the tables that a repository keeps.

tdc report results_dir=results                   # report.html, report.md, summary.csv, metrics.csv
tdc report results_dir=results/published         # of what this repository keeps
tdc report format=latex                          # tables.tex for a paper, with booktabs; format=markdown: tables.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.words import choice, read
from ..results.drawing.page.paper import FILES, write_tables
from ..results.drawing.page.report import write_report
from .shared.filters import Place


@dataclass(frozen=True)
class ReportOptions(Place):
    """``format``: html is the page and the tables that a repository keeps, the others are tables for a paper. ``out``:
    the folder to write into, by default ``results_dir``.
    """

    format: str = choice("html", ("html", "latex", "markdown"))
    out: str | None = None


def run(words: Sequence[str]) -> None:
    """Write the page and the tables that a repository keeps, or tables for a paper; print the files.

    Raises ``ConfigError`` without runs.
    """
    options = read(words, ReportOptions)
    if options.format in FILES:
        print(write_tables(options.results_dir, options.format, options.out))
    else:
        print(*write_report(options.results_dir, options.out), sep="\n")
