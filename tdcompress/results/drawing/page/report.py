"""Results for people: report.html, one page with answers, a table and figures, and report.md, the tables alone."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import matplotlib
import pandas
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ....device.files import write_text
from ....tensor.errors import ConfigError
from ...tables import read_results, warn_of_broken, write_results
from ..catalogue import QUESTIONS, Drawing
from ..comparison import Comparison, comparisons
from ..figures import drawings
from ..look import INK, Look
from .answer import Answer, answers
from .cells import COLUMNS, TEXT, markdown, rows
from .command import commands

_INKS = f"svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:#e4e4e4}}}}"
_QUOTES = str.maketrans({'"': "'", "'": '"'})
_PLAIN = " ;:/,.=()[]{}<>!*+-_@'"  # what may stand as it is in an address between double quotes
_SHORTER = ((r"<g id='[^']*'", "<g"), (r"\s+", " "), ("> <", "><"), (r"(\.\d\d)\d+", r"\1"))  # 0.01 points are enough


@dataclass(frozen=True)
class Part:
    """A comparison on the page."""

    comparison: Comparison
    answers: list[Answer]
    rows: list[list[str]]
    commands: list[str]


def write_report(results_dir: Path | str, out: Path | str | None = None) -> list[Path]:
    """Write report.html, report.md, summary.csv and metrics.csv into ``out`` or ``results_dir``; the files written.

    Broken runs are left out with a warning. Raises ``ConfigError`` when no run has finished.
    """
    runs, epochs = read_results(results_dir)
    warn_of_broken(runs)
    found = comparisons(runs)
    if not found:
        raise ConfigError(f"no finished runs in {Path(results_dir)}: tdc train -m method=tt,dense makes two")
    shared = _shared(found)
    parts = [_part(comparison) for comparison in found]
    figures = [(drawn, _picture(drawn)) for drawn in drawings(runs, epochs)]
    environment = Environment(loader=PackageLoader("tdcompress.results.drawing.page", ""), autoescape=True)
    page = environment.get_template("report.html").render(
        parts=parts,
        columns=("runs", *COLUMNS),
        text=("runs", *TEXT),
        runs=sum(len(one.comparison.runs) for one in parts),
        finished=sum(int((one.comparison.runs["status"] == "finished").sum()) for one in parts),
        shared=[*shared, *_versions(runs)],
        questions=[(question, [one for one in figures if one[0].question == question]) for question in QUESTIONS],
        results_dir=shlex.quote(Path(results_dir).as_posix()),
    )
    pages = {"report.html": page, "report.md": "\n".join(markdown(one.comparison) for one in parts)}
    folder = Path(results_dir if out is None else out)
    for name, text in pages.items():
        write_text(folder / name, text)
    return [*(folder / name for name in pages), *write_results(results_dir, runs, epochs, folder)]


def _shared(found: Sequence[Comparison]) -> list[str]:
    """What all runs have in common."""
    first, *others = (one.told for one in found)
    return [fact for fact in first if all(fact in told for told in others)]


def _versions(runs: pandas.DataFrame) -> list[str]:
    """The device, if there is one only, and the versions."""
    known = {
        name: sorted({text.split("+")[0] for text in runs[name].dropna() if text})
        for name in ("device", "torch", "tdcompress")
    }
    devices = known.pop("device")
    told = [f"{name} {', '.join(found)}" for name, found in known.items() if found]
    return devices + told if len(devices) == 1 else told


def _part(comparison: Comparison) -> Part:
    return Part(comparison, list(answers(comparison)), rows(comparison.runs), commands(comparison.runs))


def _picture(drawing: Drawing) -> dict[str, str]:
    """The attributes of a figure's image: all of it in its ``src``, which a browser need not read before it is seen.

    Its ink is light where the page is dark.
    """
    look, text = Look(title="", caption=False), io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with look.applied(), matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = drawing.plot(look)
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")
    svg = svg.replace(">", f"><style>{_INKS}</style>", 1).translate(_QUOTES)
    for long, short in _SHORTER:
        svg = re.sub(long, short, svg)
    width, height = (f"{96 * inches:.0f}" for inches in figure.get_size_inches())
    return {"src": Markup(f"data:image/svg+xml,{quote(svg, safe=_PLAIN)}"), "width": width, "height": height}
