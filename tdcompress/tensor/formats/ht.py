"""HT, hierarchical Tucker (Hackbusch and Kuehn 2009; networks: Cohen et al. 2016, Yin et al. 2020)."""

from __future__ import annotations

from ..graph import Core, Site
from ..layout import Layout
from . import register


@register("ht", layout="split", kernel="open", open_kernel=True, init="spectral")
def ht(layout: Layout) -> list[Core]:
    """A factor per leaf of a balanced binary tree over the sites, a transfer core per inner node.

    The root has no upper bond; an open kernel stays on it. Bonds are named by the node below them.
    """
    cores: list[Core] = []

    def grow(sites: tuple[Site, ...], node: str, up: tuple[str, ...]) -> None:
        if len(sites) == 1:
            cores.append(Core(f"leaf{node}", (*sites[0], *up)))
            return
        half = (len(sites) + 1) // 2
        left, right = node + "l", node + "r"
        grow(sites[:half], left, (f"r{left}",))
        grow(sites[half:], right, (f"r{right}",))
        middle = layout.open if not up else ()
        cores.append(Core(f"transfer{node}" if up else "root", (f"r{left}", *middle, f"r{right}", *up)))

    grow(layout.sites, "_", ())
    return cores
