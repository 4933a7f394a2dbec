"""What cuts save: parameters or multiply-accumulates, and how much it counts where the loss feels a cut more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tdcompress import compress
from tdcompress.compression.ranks.adaptive import shrink
from tdcompress.compression.ranks.costs import PARAMETERS, Costs
from tdcompress.tensor.contraction.cost import Rates

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("costs", "ranks"), [(PARAMETERS, [7, 6]), (Costs((40,)), [8, 5])], ids=["parameters", "macs"])
def test_how_much_more_is_left_of_a_layer_that_the_loss_feels_eight_times_as_much(costs: Costs, ranks: list[int]):
    """Each component holds half of what the one before it holds: eight times as much is three components more."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 10))
    for layer in model[:2]:
        left, right = (torch.linalg.qr(torch.randn(40, 40))[0] for _ in range(2))
        layer.weight.data = left @ torch.diag(0.5 ** (torch.arange(40.0) / 2)) @ right
    compress(model, "tt", 12, (40,), layout="matrix", init="fit", plan="contract", rates=Rates())
    assert [dict(layer.graph.ranks) for layer in model[:2]] == [{"r1": 12}] * 2
    shrink(model, costs.total(model) - 11 * 80, sensitivity={"0": 8.0, "1": 1.0}, costs=costs)
    assert [layer.graph.ranks["r1"] for layer in model[:2]] == ranks
