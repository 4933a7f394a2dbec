"""A sweep as a terminal shows it: how far it is, the runs that are being made, and the steps of one in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..watch import bars, bars_in
from .sweep import Sweep

_REDRAWS = 2  # a second


@contextmanager
def shown(sweep: Sweep) -> Iterator[None]:
    """Draw ``sweep`` below its lines until the block ends, if stderr is a terminal and there are several runs.

    Of the processes that torchrun started only the first one draws.
    """
    if sweep.alone or not sys.stderr.isatty() or int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    steps = bars()

    def drawn() -> Group:
        rows = [sweep.told(), *(f"  {run.job.name}  {run.trained()} of {run.epochs} epochs" for run in sweep.running)]
        return Group(*(Text(row, no_wrap=True, overflow="ellipsis") for row in rows), steps.get_renderable())

    # Lines are left as they are, however long; and what goes to a file or a pipe on stdout is left to go there.
    live = Live(
        get_renderable=drawn,
        console=Console(stderr=True, soft_wrap=True),
        transient=True,
        refresh_per_second=_REDRAWS,
        redirect_stdout=sys.stdout.isatty(),
    )
    sweep.drawn = True
    with live, bars_in(steps):
        yield
