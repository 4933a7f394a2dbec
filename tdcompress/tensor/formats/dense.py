"""Dense: one core that carries every mode, the baseline."""

from __future__ import annotations

from ..graph import Core
from ..layout import Layout
from . import register


@register("dense", open_kernel=True, factorised=False)
def dense(layout: Layout) -> list[Core]:
    """A single core with every mode and no bond."""
    return [Core("weight", layout.modes)]
