"""Any shape, rank, layout and stride that hypothesis thinks of: layers against the dense ones they stand for."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from cases import FACTORISED, einsum_weight
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tdcompress import compress
from tdcompress.compression.spec import build_graph
from tdcompress.config.schema import MethodConfig
from tdcompress.layers.base import Factorised
from tdcompress.tensor.caps import capped, caps
from tdcompress.tensor.contraction.search import PLANS
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Graph
from tdcompress.tensor.layout import KERNELS, LAYOUTS

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = st.integers(1, 12)
MOST = 12
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
METHODS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from([None, *LAYOUTS]),
        "kernel": st.sampled_from([None, *KERNELS]),
        "factors": st.integers(1, 3),
        "plan": st.sampled_from([plan for plan in PLANS if plan != "measure"]),
        "init": st.sampled_from(["variance", "orthogonal"]),
        "checkpoint": st.booleans(),
    }
)


def cannot_be(format: str, layout: str | None, kernel: str | None, factors: int) -> bool:
    """Whether a format has no such layout, no core that a kernel could stay on, or one site where it needs two."""
    own = FORMATS[format]
    if layout not in (None, *own.layouts) or (kernel == "open" and not own.open_kernel):
        return True
    return layout == "paired" and factors == 1


def factorised(twin: nn.Module, format: str, rank: int, method: dict, shape: tuple[int, ...]) -> Factorised | None:
    """``twin`` with its weight in ``format``, in double precision, or None for a combination that is refused.

    Beyond ``MOST`` cores the search for the best of all contractions takes seconds for each.
    """
    with suppress(ConfigError):
        chosen = {key: method[key] for key in ("layout", "kernel", "factors")}
        assume(len(build_graph(twin.weight.shape, FORMATS[format], MethodConfig(format, **chosen)).cores) <= MOST)
    model = nn.Sequential(twin)
    try:
        compress(model, format, rank, shape, keep=[], allow_larger=True, **method)
    except ConfigError as error:
        assert str(error).startswith("layer 0: ") and "\n" not in str(error)  # noqa: PT017
        assert cannot_be(format, method["layout"], method["kernel"], method["factors"])
        return None
    layer = model[0]
    assert isinstance(layer, Factorised)
    for bond, size in layer.graph.ranks.items():
        assert 1 <= size <= min(rank, caps(layer.graph)[bond])
    return layer.double()


def agrees(layer: Factorised, x: Tensor, expected: Tensor) -> None:
    """Outputs, and the gradients of the input and of every core."""
    cores = [x, *layer.parameters()]
    output = layer(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).reshape(output.shape)
    torch.testing.assert_close(output, expected, rtol=1e-7, atol=1e-9)
    found = torch.autograd.grad((output * weights).sum(), cores)
    for ours, theirs in zip(found, torch.autograd.grad((expected * weights).sum(), cores), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    format=st.sampled_from(FACTORISED),
    method=METHODS,
    rank=st.integers(1, 9),
    channels=st.tuples(CHANNELS, CHANNELS),
    taps=PAIRS,
    stride=PAIRS,
    dilation=PAIRS,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    more=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    groups=st.sampled_from([1, 1, 1, 2]),
    bias=st.booleans(),
)
def test_any_convolution(format, method, rank, channels, taps, stride, dilation, padding, more, groups, bias):
    torch.manual_seed(0)
    inputs, outputs = (groups * count for count in channels)
    twin = nn.Conv2d(inputs, outputs, taps, stride, padding, dilation, groups, bias)
    # The smallest image that the kernel fits into, and some more.
    sides = [
        max(1, reach * (count - 1) + 1 - 2 * pad) + extra
        for count, reach, pad, extra in zip(taps, dilation, padding, more, strict=True)
    ]
    layer = factorised(twin, format, rank, method, (inputs, *sides))
    if layer is not None:
        x = torch.randn(2, inputs, *sides, dtype=torch.double, requires_grad=True)
        agrees(
            layer,
            x,
            F.conv2d(
                x,
                einsum_weight(layer),
                layer.bias,
                stride,
                padding,
                dilation,
                groups,
            ),
        )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    format=st.sampled_from(FACTORISED),
    method=METHODS,
    rank=st.integers(1, 9),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    leading=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    bias=st.booleans(),
)
def test_any_linear_layer(format, method, rank, inputs, outputs, leading, bias):
    torch.manual_seed(0)
    layer = factorised(nn.Linear(inputs, outputs, bias), format, rank, {**method, "kernel": None}, (inputs,))
    if layer is not None:
        x = torch.randn(*leading, inputs, dtype=torch.double, requires_grad=True)
        agrees(layer, x, F.linear(x, einsum_weight(layer), layer.bias))


def graph_or_none(format: str, shape: tuple[int, ...], layout: str, factors: int) -> Graph | None:
    try:
        return build_graph(shape, FORMATS[format], MethodConfig(format, layout=layout, factors=factors))
    except ConfigError:
        assert cannot_be(format, layout, None, factors)
        return None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    format=st.sampled_from(FACTORISED),
    layout=st.sampled_from(LAYOUTS),
    factors=st.integers(1, 3),
    shape=st.tuples(CHANNELS, CHANNELS, st.integers(1, 3), st.integers(1, 3)),
    rank=st.integers(1, 400),
)
def test_caps_keep_what_a_weight_can_use_and_no_more(format, layout, factors, shape, rank):
    graph = graph_or_none(format, shape, layout, factors)
    if graph is None:
        return
    found = capped(graph, dict.fromkeys(graph.bonds, rank))
    assert capped(graph, found.ranks).ranks == found.ranks  # a fixpoint
    for bond, size in found.ranks.items():
        parts = graph.branches(bond)
        if len(parts) == len(graph.carriers[bond]) == 2:  # what lies beyond either end
            assert size <= min(math.prod(found.sizes[mode] for mode in modes(graph, part)) for part in parts)
    larger = capped(graph, dict.fromkeys(graph.bonds, rank + 1))
    assert all(larger.ranks[bond] >= size for bond, size in found.ranks.items())


def modes(graph: Graph, part: frozenset[int]) -> list[str]:
    return [mode for mode in graph.modes if graph.carriers[mode][0] in part]
