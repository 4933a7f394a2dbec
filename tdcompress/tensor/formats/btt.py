"""BTT, block tensor train (Qiu et al. 2024, *Compute Better Spent*); of rank one Monarch (Dao et al. 2022)."""

from __future__ import annotations

from ..graph import Core
from ..layout import Layout
from . import register


def one(channels: tuple[int, int], bond: str, conv: bool) -> int:
    """Of rank one: the reference system has no blocks, and the rank of its chain in each of them saves nothing."""
    return 1


@register("btt", layout="split", layouts=("split",), factors=2, factors_by_budget=True, reference_rank=one)
def btt(layout: Layout) -> list[Core]:
    """Two cores ``(i1, i2, o1, r)`` and ``(i1, r, o1, o2, k)``: a train in each of the blocks ``(i1, o1)`` of a weight.

    Blocks are numbered by all but the last of the modes of the inputs, and of the outputs. The kernel's last site is on
    the second core, one before it on the first.
    """
    *rows, i = layout.input_modes
    *columns, o = layout.output_modes
    *before, kernel = layout.kernel or ((),)
    first = [mode for site in before for mode in site]
    return [Core("core1", (*rows, i, *first, *columns, "r")), Core("core2", (*rows, "r", *columns, o, *kernel))]
