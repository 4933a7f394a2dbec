"""Tucker: a factor per site around one core (Tucker 1966; Tucker-2 convolutions: Kim et al. 2016)."""

from __future__ import annotations

from ..graph import Core
from ..layout import Layout
from . import register


def third_per_side(channels: tuple[int, int], bond: str, conv: bool) -> int:
    """The reference system's Tucker ranks: ceil(C / 3) on each channel's own side."""
    if not conv:
        return max(1, min(channels) // 2)
    if bond.startswith("r_i"):
        return -(-channels[0] // 3)
    if bond.startswith("r_o"):
        return -(-channels[1] // 3)
    return max(channels)  # the kernel's own modes: as much as they can use


@register(
    "tucker", kernel="open", open_kernel=True, reference_rank=third_per_side, init="spectral", tensorly="TuckerTensor"
)
def tucker(layout: Layout) -> list[Core]:
    """A factor ``(site, r)`` per site; the core carries every bond and the open kernel modes."""
    bonds = {site: f"r_{site[0]}" for site in layout.sites}
    factors = [Core(f"factor_{site[0]}", (*site, bond)) for site, bond in bonds.items()]
    return [*factors, Core("core", (*bonds.values(), *layout.open))]
