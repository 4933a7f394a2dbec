"""Where ranks begin that are cut while training."""

from __future__ import annotations

import math

import pytest
from torch import nn

from tdcompress.compression.swap import compress
from tdcompress.layers.kinds import factorised


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("format", ["btt", "tt", "cp"])
def test_ranks_that_are_cut_begin_halfway_beside_layers_that_are_never_smaller(format: str):
    def separable(width: int) -> nn.Module:
        pairs = [(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1)) for _ in range(2)]
        ends = nn.Conv2d(3, width, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
        return nn.Sequential(ends[0], *(layer for pair in pairs for layer in pair), *ends[1:])

    for target in (1.5, 2):
        model = separable(64)
        whole = parameters(model)
        compress(model, format, f"adaptive:{target}x", (3, 8, 8))
        assert whole / parameters(model) == pytest.approx(math.sqrt(target), rel=0.02)


@pytest.mark.parametrize("format", ["btt", "tt", "cp"])
def test_a_beginning_need_not_be_met_exactly(format: str):
    model = nn.Sequential(nn.Linear(64, 96, bias=False))
    modes = {"in_modes": [1, 64], "out_modes": [1, 96]} if format == "btt" else {"layout": "channels"}
    compress(model, format, "adaptive:5.5x", (64,), keep=[], **modes)
    assert parameters(model) == 16 * 160  # halfway are 2,620, and 17 are as far from it


@pytest.mark.parametrize("times", [5, 10, 25])
def test_small_budgets_begin_with_blocks(times: int):
    wide = [nn.Conv2d(128, 128, 3, padding=1) for _ in range(4)]
    model = nn.Sequential(nn.Conv2d(3, 128, 3), *wide, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    compress(model, "btt", f"adaptive:{times}x", (3, 8, 8), keep=["0", "7"])
    for layer in factorised(model).values():  # in a single one a component passes a single number
        (blocks,) = layer.graph.blocks.values()
        assert math.prod(layer.graph.sizes[mode] for mode in blocks) > 1


@pytest.mark.parametrize("format", ["tucker", "tt"])
def test_beside_layers_of_ranks_of_their_own_the_beginning_is_halfway_to_what_the_others_can_be(format: str):
    model = nn.Sequential(nn.Linear(320, 256), nn.Linear(256, 64), nn.Linear(64, 48), nn.Linear(48, 10))
    others = sum(parameters(layer) for layer in model[1:]) + 256  # dense, and the first layer's bias
    whole = parameters(model)
    compress(model, format, "adaptive:10x", (320,), keep=["3"], layout="channels", layers={"0": {"rank": 8}})
    held = sum(core.numel() for core in model[0].tensors())
    assert parameters(model) == pytest.approx(math.sqrt(whole / 10 * (others + held)), rel=0.02)
