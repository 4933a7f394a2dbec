"""What is shown of a folder of results: its report, figures and tables."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tdcompress.results.drawing.figures import plot_all
from tdcompress.results.drawing.look import Look
from tdcompress.results.drawing.page.report import write_report

from . import pages


def draw(out: Path) -> None:
    """The report, the figures that the pages show and the pages' tables, of the tables in ``out`` alone.

    Of other results than the published ones every figure, and the tables in a file of their own.
    """
    shown = pages.figures(out)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("summary.csv", "metrics.csv"):
            shutil.copy(out / name, folder)
        write_report(folder)
        shutil.copy(Path(folder, "report.md"), out)
        for path in plot_all(folder, ("png",), Look.sized("page"), shown):
            (out / "figures").mkdir(exist_ok=True)
            shutil.copy(path, out / "figures")
    pages.write(out)
