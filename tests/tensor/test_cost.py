"""The cost model asks for the rate of the call that torch is given, and so the planner avoids calls that are slow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import CASES, Case, Made
from torch import Tensor, nn

from tdcompress.compression.swap import compress
from tdcompress.layers.base import Factorised
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.path import Path
from tdcompress.tensor.contraction.search import paths

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("convolution", "pointwise", "grouped", "depthwise", "depthwise_3d", "product", "batched")
EVEN = Rates(*[1e9] * len(KINDS), memory=1e12, call=0.0)  # arithmetic alone decides
BATCH = 3


def example(layer: Factorised) -> Tensor:
    shape = layer.planner.input_shape
    return torch.randn(BATCH, *shape[1:], dtype=torch.float64)


def found(layer: Factorised, rates: Rates, plan: str = "model") -> list[Path]:
    return paths(layer.graph, layer.geometry(BATCH, layer.planner.input_shape), rates, plan)


def made(layer: Factorised, path: Path) -> set[str]:
    """The kinds of calls in a forward pass along ``path``."""
    layer.use(path)
    x = example(layer)
    with Made() as calls:
        layer(x)
    return set(calls.macs)


def test_seconds_counted_by_hand():
    rates = Rates(product=1e3, memory=10.0, call=0.5, lanes=4, width=2)
    # 6 rows, 5 summed, 3 new, in lanes of four: forward 5 x 4, of the input 3 x 8, of the weight 5 x 4 multiplications.
    macs = 6 * (5 * 4 + 3 * 8 + 5 * 4)
    moved = 3 * 2 * (30 + 15 + 18)  # input, weight and output, of two bytes, by each of the three calls
    assert rates.contraction(6, 1, 5, 3, 1, (30, 15, 18)) == pytest.approx(macs / 1e3 + moved / 10 + 3 * 0.5)
    assert rates.copy(7) == pytest.approx(4 * 2 * 7 / 10 + 2 * 0.5)  # read and written, there and back


@pytest.mark.parametrize("case", [case for case in CASES if case.kernel != "separate"][::2], ids=str)
def test_a_path_costs_what_its_kinds_of_calls_cost(case: Case):
    layer = case.layer()
    for path in found(layer, Rates(), "measure"):
        calls = made(layer, path)
        for kind in KINDS:
            slow = replace(Rates(), **{kind: 1.0})
            seconds = [other.seconds for other in found(layer, slow, "measure") if other.terms == path.terms]
            assert all((s > 1) == (kind in calls) for s in seconds), (path, kind)


# Which make calls of a kind where all are equally fast, and none where it is slow.
AVOIDED = [
    ("pointwise", Case("tucker", "channels", "open", "conv")),
    ("depthwise", Case("cp", "channels", "merged", "conv")),
    ("grouped", Case("tr", "channels", "merged", "conv")),
    ("grouped", Case("btt", "split", "separate", "conv")),
    ("batched", Case("btt", "split", "merged", "conv")),
]


@pytest.mark.parametrize(("kind", "case"), AVOIDED, ids=str)
def test_a_kind_of_call_that_is_slow_is_avoided(kind: str, case: Case):
    layer = case.layer(2)
    (usual,), (other,) = (found(layer, rates) for rates in (EVEN, replace(EVEN, **{kind: 1.0})))
    assert kind in made(layer, usual)
    assert kind not in made(layer, other)


def test_depthwise_calls_along_three_axes_are_avoided_where_those_are_slow():
    def made(rates: Rates) -> set[str]:
        layer = compress(nn.Conv3d(6, 8, 3, padding=1), "cp", 2, (6, 5, 5, 5), keep=[], layout="channels", rates=rates)
        with Made() as calls:
            layer(torch.randn(BATCH, 6, 5, 5, 5))
        return set(calls.macs)

    assert "depthwise_3d" in made(EVEN) - made(replace(EVEN, depthwise_3d=1.0))
    assert "depthwise_3d" in made(replace(EVEN, depthwise=1.0))
