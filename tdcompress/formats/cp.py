"""CP, canonical polyadic: a sum of rank-one tensors (Hitchcock 1927; convolutions: Lebedev et al. 2015)."""

from ..network.graph import Core
from ..network.layout import Layout
from . import register


@register("cp", kernel="merged", init="spectral")
def cp(layout: Layout) -> list[Core]:
    """A factor ``(site, r)`` per site and one hyperedge ``r`` through all of them."""
    return [Core(f"factor{k}", (*site, "r")) for k, site in enumerate(layout.sites, 1)]
