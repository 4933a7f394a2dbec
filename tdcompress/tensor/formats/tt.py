"""TT, tensor train (Oseledets 2011; linear layers: Novikov et al. 2015; convolutions: Garipov et al. 2016)."""

from __future__ import annotations

from ..graph import Core
from ..layout import Layout
from . import register


@register("tt", linear_layout="split", reference_layout="matrix", init="spectral", default=True, tensorly="TTTensor")
def tt(layout: Layout) -> list[Core]:
    """A chain ``(s1, r1) (r1, s2, r2) .. (rd-1, sd)`` over the sites."""
    sites, last = layout.sites, len(layout.sites)
    return [
        Core(f"core{k}", ((f"r{k - 1}",) if k > 1 else ()) + site + ((f"r{k}",) if k < last else ()))
        for k, site in enumerate(sites, 1)
    ]
