"""``tdc report``: tables and figures as one page, and the tables that a repository keeps.

tdc report results_dir=results                   # report.html, report.md, summary.csv, metrics.csv
tdc report results_dir=results/published         # of what this repository keeps
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.words import read
from ..results.page import write_report
from .shared.filters import Place


def run(words: Sequence[str]) -> None:
    """Write the page and the tables that a repository keeps; print the files. Raises ``ConfigError`` without runs."""
    for path in write_report(read(words, Place).results_dir):
        print(path)
