"""TR, tensor ring (Zhao et al. 2016; tensor ring nets: Wang et al. 2018)."""

from __future__ import annotations

import math

from ..graph import Core
from ..layout import Layout
from . import register, widest_third


def root(channels: tuple[int, int], bond: str, conv: bool) -> int:
    """The root of a chain's reference rank: a ring is cut at two bonds, a chain at one. The reference has no ring."""
    return math.isqrt(widest_third(channels, bond, conv) - 1) + 1


@register("tr", linear_layout="split", reference_rank=root, tensorly="TRTensor")
def tr(layout: Layout) -> list[Core]:
    """A closed chain ``(r0, s1, r1) (r1, s2, r2) .. (rd-1, sd, r0)`` over the sites."""
    count = len(layout.sites)
    return [Core(f"core{k}", (f"r{k - 1}", *site, f"r{k % count}")) for k, site in enumerate(layout.sites, 1)]
