"""Every figure that runs allow, each with what it says of them, and the files that they are written to."""

from __future__ import annotations

import difflib
import fnmatch
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas
from matplotlib.figure import Figure

from ...device.files import write_whole
from ...tensor.errors import ConfigError
from ..tables import read_results
from .catalogue import Drawing, axes_asked, drawings_of, drawings_over
from .comparison import comparisons
from .look import Look

EXTENSIONS = ("png", "svg", "pdf")


def plot_all(
    results_dir: str | Path,
    extensions: Sequence[str] = ("png", "svg"),
    look: Look = Look(),  # noqa: B008 (frozen)
    figures: Sequence[str] = (),
    x: str | None = None,
    y: str | None = None,
    out: str | Path | None = None,
    **filters: Any,
) -> list[Path]:
    """Draw every figure that the runs under ``results_dir`` allow; the files written.

    ``out``: the folder that they go to, by default ``results_dir``/figures. ``figures``: the names of those that are
    wanted, with ``*`` for any part, none for all; ``x``, ``y``: columns, to draw the one over the other instead.
    ``filters`` choose runs as in ``read_runs``. Raises ``ConfigError`` when there is nothing to draw, and for a file
    format, a figure or a column that there is not.
    """
    unknown = sorted(set(extensions) - set(EXTENSIONS))
    if unknown:
        raise ConfigError(f"unknown figure format '{unknown[0]}', known: {', '.join(EXTENSIONS)}")
    runs, epochs = read_results(results_dir, **filters)
    odd = sorted(set(look.order) - set(runs["method"])) if len(runs) else []
    if odd:
        raise ConfigError(f"order={odd[0]}: no run has this method, there are {', '.join(sorted(set(runs['method'])))}")
    found = list(drawings(runs, epochs, x, y))
    if not found:
        like = " like that" if filters else ""
        if x or y:
            raise ConfigError(f"no finished runs{like} have both {' and '.join(axes_asked(x, y))}")
        raise ConfigError(
            f"no finished runs{like} in {Path(results_dir) / 'runs'}: tdc train -m method=tt,dense makes two"
        )
    names = [drawing.name for drawing in found]
    lost = next((name for name in figures if not fnmatch.filter(names, name)), None)
    if lost is not None:
        near = difflib.get_close_matches(lost, names, 3, cutoff=0.3)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise ConfigError(f"no figure '{lost}'{meant}, there are {len(names)}; * stands for any part of a name")
    folder, written = Path(results_dir) / "figures" if out is None else Path(out), []
    for drawing in found:
        if not figures or any(fnmatch.fnmatchcase(drawing.name, name) for name in figures):
            written += write(drawing, look, folder, extensions)
    return written


def drawings(
    runs: pandas.DataFrame, epochs: pandas.DataFrame, x: str | None = None, y: str | None = None
) -> Iterator[Drawing]:
    """Every figure of ``runs`` and their ``epochs``, as ``read_results`` gives them; or those of ``y`` over ``x``.

    Each has a name of its own, also where two folders of data have one name, or two settings are said alike.
    """
    counts: dict[str, int] = {}
    for comparison in comparisons(runs):
        overall = x is None and y is None
        for one in drawings_of(comparison, epochs) if overall else drawings_over(comparison, epochs, x, y):
            count = counts[one.name] = counts.get(one.name, 0) + 1
            yield one if count == 1 else replace(one, name=f"{one.name}-{count}")


def write(drawing: Drawing, look: Look, folder: Path, extensions: Sequence[str]) -> list[Path]:
    """Draw a figure with its title and caption into files of ``folder``, one for each extension; returns them."""
    written = []
    with look.applied():
        figure = drawing.plot(look)
        _frame(figure, drawing, look)
        for extension in extensions:
            path = folder / f"{drawing.name}.{extension}"
            metadata = {"Date": None} if extension == "svg" else {"CreationDate": None} if extension == "pdf" else None
            write_whole(path, partial(figure.savefig, format=extension, dpi=300, metadata=metadata))
            written.append(path)
    return written


def _frame(figure: Figure, drawing: Drawing, look: Look) -> None:
    """Write the title above and the caption beneath."""
    size = matplotlib.rcParams["font.size"]
    title = drawing.title if look.title is None else look.title
    lines = textwrap.wrap(title, int(118 * figure.get_figwidth() / size))
    caption = (
        textwrap.wrap(drawing.caption, int(24 * figure.get_figwidth() * 5.6 / (0.7 * size))) if look.caption else []
    )
    if look.height is None:
        figure.set_figheight(figure.get_figheight() + size * (1.4 * len(lines) + 0.9 * len(caption)) / 72)
    if lines:
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontweight="bold", parse_math=False)
    if caption:
        figure.supxlabel("\n".join(caption), fontsize=0.7 * size, x=0.01, ha="left", parse_math=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*layout", UserWarning)
            figure.draw_without_rendering()
    except UserWarning:
        raise ConfigError(
            f"{drawing.name} needs more room than {look.width:g} by {figure.get_figheight():g} inches"
        ) from None
    figure.set_layout_engine("none")  # or each save would move things a little, and no two files would be the same
