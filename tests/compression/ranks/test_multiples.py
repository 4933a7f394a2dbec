"""Larger ranks of a budget are multiples, of eight by default, as far as the budget can be met so."""

from __future__ import annotations

import pytest
from cases import having
from torch import nn

from tdcompress.compression.swap import compress
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("format", [format for format, _ in having("channels")])
def test_larger_ranks_are_multiples_of_eight(format: str):
    """Where the budget can be met so; below 32 they are what the scale gives."""
    model = nn.Sequential(*(nn.Conv2d(n, n, 3) for n in (256, 256, 256, 256)))
    dense = sum(p.numel() for p in model.parameters())
    compress(model, format, "8x", (256, 12, 12), keep=[], layout="channels", plan="contract", init="variance")
    found = {rank for layer in factorised(model).values() for rank in layer.graph.ranks.values()}
    assert all(rank % 8 == 0 for rank in found if rank >= 32)
    assert abs(dense / sum(p.numel() for p in model.parameters()) / 8 - 1) <= 0.02


def test_a_budget_that_multiples_of_eight_miss_is_met_with_smaller_ones():
    def entries(rank: int) -> int:
        return 2 * 400 * rank

    for target, multiple, found in (
        (entries(48), 8, 48),
        (entries(44), 8, 44),
        (entries(43), 8, 43),
        (entries(44), 1, 44),
    ):
        model = nn.Sequential(nn.Linear(400, 400, bias=False))
        compress(model, "tt", f"params:{target}", (400,), keep=[], layout="matrix", rank_multiple=multiple)
        assert model[0].graph.ranks == {"r1": found}


def test_a_multiple_that_is_no_power_of_two_is_refused():
    with pytest.raises(ConfigError, match=r"rank_multiple=6 must be a power of two"):
        compress(nn.Sequential(nn.Linear(100, 60)), "tt", "3x", (100,), rank_multiple=6)
