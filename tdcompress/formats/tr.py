"""TR, tensor ring (Zhao et al. 2016; tensor ring nets: Wang et al. 2018)."""

from ..network.graph import Core
from ..network.layout import Layout
from . import register


@register("tr")
def tr(layout: Layout) -> list[Core]:
    """A closed chain ``(r0, s1, r1) (r1, s2, r2) .. (rd-1, sd, r0)`` over the sites."""
    count = len(layout.sites)
    return [Core(f"core{k}", (f"r{k - 1}", *site, f"r{k % count}")) for k, site in enumerate(layout.sites, 1)]
