"""CP, canonical polyadic: a sum of rank-one tensors (Hitchcock 1927; convolutions: Lebedev et al. 2015)."""

from __future__ import annotations

from ..graph import Core
from ..layout import Layout
from . import register


# Three pairs of modes leave a rank-one term almost no parameters: at equal size it trains worse than with two.
@register("cp", factors=2, kernel="merged", init="spectral", tensorly="CPTensor")
def cp(layout: Layout) -> list[Core]:
    """A factor ``(site, r)`` per site and one hyperedge ``r`` through all of them."""
    return [Core(f"factor{k}", (*site, "r")) for k, site in enumerate(layout.sites, 1)]
