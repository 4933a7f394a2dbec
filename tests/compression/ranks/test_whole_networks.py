"""What a budget of a whole network is spent on, and what stands in its way."""

from __future__ import annotations

import pytest
import torch
from cases import FACTORISED
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tdcompress import compress, count, report
from tdcompress.config.schema import ArchConfig
from tdcompress.layers.kinds import factorised
from tdcompress.models.build import build
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_stands_in_the_way_of_a_budget_is_named():
    model = nn.Sequential(nn.Linear(100, 100), nn.Bilinear(100, 100, 4), nn.Linear(4, 100), nn.Linear(100, 4))
    model.unused = nn.Linear(90, 90)
    pair = nn.Module()
    pair.net, pair.forward = model, lambda x: model[3](model[2](model[1](model[0](x), x)))
    with pytest.raises(ConfigError) as error:
        compress(pair, "tt", "10x", (100,), keep=["net.2"])
    assert str(error.value).split("; dense stay ")[1] == (
        "net.1 (40,004: Bilinear cannot be held as cores), net.unused (8,190: the inputs do not reach it), "
        "net.2 (500: kept)"
    )


def test_what_is_held_by_another_name_stands_in_no_budgets_way():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Bilinear(8, 8, 64))
    model[1].weight = model[0].weight
    model.forward = lambda x: model[1](model[0](x)) + model[2](x[:, :8], x[:, 8:16])
    with pytest.raises(ConfigError) as error:
        compress(nn.Sequential(model), "tt", "60x", (64,), keep=[])
    assert str(error.value).split("; dense stay ")[1] == "0.2 (4,160: Bilinear cannot be held as cores)"


def test_a_first_or_last_layer_stays_dense_where_it_takes_under_a_tenth_of_the_budget():
    def net() -> nn.Module:
        convolution = nn.Sequential(nn.Conv2d(3, 64, 3), nn.AdaptiveAvgPool2d(8), nn.Flatten())  # 1,792
        return nn.Sequential(*convolution, nn.Linear(4096, 64), nn.Linear(64, 20))  # 262,208; 1,300

    for rank, held in (("10x", {"3"}), ("16x", {"0", "3"}), ("params:17000", {"0", "3"}), ("25x", {"0", "3", "4"})):
        assert set(factorised(compress(net(), "tt", rank, (3, 16, 16)))) == held, rank
    assert set(factorised(compress(net(), "tt", "25x", (3, 16, 16), keep=["4"]))) == {"0", "3"}
    assert set(factorised(compress(net(), "tt", 2, (3, 16, 16)))) == {"3"}  # no budget that it could take much of


@pytest.mark.parametrize("method", FACTORISED)
def test_layers_too_small_for_any_cores_stay_dense(method: str):
    depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)  # 64x1x3x3
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), depthwise, nn.Conv2d(64, 256, 1), nn.Conv2d(256, 64, 1), nn.Conv2d(64, 8, 1)
    )
    compress(model, method, "4x", (3, 8, 8))
    assert model[1] is depthwise
    counts = count(model, (3, 8, 8))
    assert abs(4 * counts["parameters"] / counts["dense_parameters"] - 1) <= 0.02


@pytest.mark.parametrize("share", [0.2, 0.35, 0.4])
@pytest.mark.parametrize("method", FACTORISED)
def test_a_budget_of_macs_is_met_though_plans_change_with_the_ranks(method: str, share: float):
    model = build(ArchConfig(name="vgg16", width=0.25), 3, 10, 32).eval()

    def macs() -> int:
        found = []
        for images in torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32):
            with FlopCounterMode(display=False) as counter:
                model(images)
            found.append(counter.get_total_flops() // 2)
        return found[1] - found[0]  # of one image, without products of cores

    dense = macs()
    compress(model, method, f"macs:{share}", (3, 32, 32), init="variance")
    assert abs(macs() / (share * dense) - 1) <= 0.02


@pytest.mark.parametrize("rank", ["macs:0.5", "adaptive:macs:0.5", "2x"])
def test_a_layer_that_the_example_gives_nothing(rank: str):
    class Experts(nn.Module):
        """Those of inputs above zero, and of others."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.some, self.others = (nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x, chosen = self.first(x), x.sum(1) >= 0
            return torch.cat((self.some(x[chosen]), self.others(x[~chosen])))

    model = compress(Experts(), "tt", rank, (64,), keep=[])
    held = factorised(model).keys()
    assert held == ({"first", "some", "others"} if rank == "2x" else {"first", "some"})
    if "macs" in rank:
        assert "has no MACs that could be saved" in str(report(model))
