"""A format of three cores whose modes sit on two and on three of them, known to the tests that ask for it only."""

from __future__ import annotations

import pytest

from tdcompress.tensor.formats import FORMATS, Format
from tdcompress.tensor.graph import Core
from tdcompress.tensor.layout import Layout

NAME = "three_blocks"


def three_blocks(layout: Layout) -> list[Core]:
    """``(i1, i2, o1, r1) (i1, r1, o1, k, r2) (r2, o1, o2)``, of inputs and outputs all but the last mode each."""
    *rows, i = layout.input_modes
    *columns, o = layout.output_modes
    kernel = [mode for site in layout.kernel for mode in site]
    return [
        Core("first", (*rows, i, *columns, "r1")),
        Core("middle", (*rows, "r1", *columns, *kernel, "r2")),
        Core("last", ("r2", *columns, o)),
    ]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which it is known for the time of a test."""
    monkeypatch.setitem(FORMATS, NAME, Format(NAME, three_blocks, layout="split", layouts=("split",), factors=2))
    return NAME
