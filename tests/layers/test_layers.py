"""The modules, against F.conv2d and F.linear with the reconstructed weight."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, IMAGE, IN, OUT, SHAPES, TAPS, Case, assert_close, einsum_dense, einsum_weight, random_cores
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.base import Factorised, Planner
from tdcompress.layers.conv import FactorisedConv
from tdcompress.layers.linear import FactorisedLinear
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.search import paths

pytestmark = pytest.mark.usefixtures("one_thread")

CONVS = [case for case in CASES if case.kind == "conv"]
LINEARS = [case for case in CASES if case.kind == "linear"]
PER_FORMAT = [Case("cp", "channels", "separate", "conv"), Case("tucker", "channels", "open", "conv")]
PER_FORMAT += [Case("tt", "matrix", "merged", "conv"), Case("tr", "split", "merged", "conv")]
PER_FORMAT += [Case("ht", "paired", "merged", "conv"), Case("btt", "split", "merged", "conv")]


def example(case: Case, batch: int = 2) -> Tensor:
    """A double precision input of the case's layer."""
    shape = (batch, IN, *IMAGE) if case.kind == "conv" else (batch, IN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def dense(layer: Factorised, twin: nn.Module, x: Tensor) -> Tensor:
    """What torch computes with the reconstructed weight and the settings of ``twin``."""
    state = {"weight": layer.to_dense()} | ({} if layer.bias is None else {"bias": layer.bias})
    return torch.func.functional_call(twin.double(), state, (x,))


def assert_same(layer: Factorised, twin: nn.Module, x: Tensor) -> None:
    """Equal outputs, and equal gradients of the input, every core and the bias."""
    wanted = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
    outputs = layer(wanted[0]), dense(layer, twin, wanted[1])
    assert_close(*outputs)
    probe = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = list(layer.parameters())
    found, expected = (
        torch.autograd.grad((y * probe).sum(), [x, *parameters]) for y, x in zip(outputs, wanted, strict=True)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("plan", ["model", "chain", "dense"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case: Case, plan: str):
    twin = case.twin()
    assert_same(case.layer(plan=plan, twin=twin), twin, example(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_candidate_path_computes_the_same(case: Case):
    twin = case.twin()
    layer = case.layer(2, twin=twin)
    x = example(case)
    expected = dense(layer, twin, x)
    draw = random.Random(0)
    seen = set()
    for batch in (1, 100):  # devices at random: different orders win
        speeds = (10 ** draw.uniform(8, 11) for _ in range(7))
        rates = Rates(*speeds, 10 ** draw.uniform(-8, -4))
        for path in paths(layer.graph, layer.geometry(batch, tuple(x.shape)), rates, "measure"):
            if path.terms not in seen:
                seen.add(path.terms)
                layer.use(path)
                assert_close(layer(x), expected)
    assert len(seen) > 1


def test_a_kernel_repeated_in_groups_where_moving_the_activation_costs_more():
    case = Case("tr", "channels", "merged", "conv")
    twin = case.twin(padding=1)
    layer = case.layer(twin=twin)
    geometry = layer.geometry(100, tuple(example(case).shape))
    (path,) = paths(layer.graph, geometry, Rates(memory=1e9), "chain")
    assert [term.spread for term in path.terms].count(True) == 1
    layer.use(path)
    assert "core2:3x2/3" in layer.plan.text
    assert all(step.order is None for step in layer.plan.steps)
    assert_same(layer, twin, example(case))


SETTINGS = [
    {"stride": 2},
    {"stride": (1, 2), "padding": (2, 1), "bias": False},
    {"padding": "same"},  # uneven along the even kernel axis
    {"padding": "same", "dilation": (2, 3)},
    {"padding": "valid", "dilation": 2},
    {"padding": (0, 2), "padding_mode": "circular"},
    {"padding": (2, 1), "padding_mode": "reflect", "stride": 2},
    {"padding": "same", "padding_mode": "replicate"},
    {"groups": 2, "padding": 1},
    {"groups": 4, "padding": "same", "padding_mode": "reflect", "bias": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("case", PER_FORMAT, ids=str)
def test_convolution_settings(case: Case, settings: dict):
    twin = case.twin(**settings)
    for plan in ("model", "chain", "dense"):
        assert_same(case.layer(plan=plan, twin=twin), twin, example(case))


@pytest.mark.parametrize("case", PER_FORMAT, ids=str)
@pytest.mark.parametrize("taps", [(1, 1), (1, 5), (4, 4)], ids=str)
def test_kernel_sizes(case: Case, taps: tuple[int, int]):
    twin = nn.Conv2d(IN, OUT, taps, padding="same")
    assert_same(case.layer(twin=twin), twin, example(case))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("case", {(case.format, case.kind): case for case in CASES}.values(), ids=str)
def test_inputs_of_another_width_are_refused(case: Case, batch: int, training: bool):
    x = example(case, batch)
    with pytest.raises(RuntimeError):
        case.layer().train(training)(torch.cat([x, x], dim=1))


@pytest.mark.parametrize("case", CONVS, ids=str)
def test_memory_formats(case: Case):
    twin = case.twin(padding=1)
    layer, x = case.layer(twin=twin), example(case)
    strided = x.new_zeros(2, IN, IMAGE[0], 2 * IMAGE[1])[..., ::2].copy_(x)
    for given in (x, x.contiguous(memory_format=torch.channels_last), strided):
        assert_same(layer, twin, given)
    out = layer(x.contiguous(memory_format=torch.channels_last))
    if all(step.order is None for step in layer.plan.steps) and layer.plan.order is None:  # nothing is permuted
        assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", LINEARS, ids=str)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3, 2)], ids=str)
def test_linear_leading_dimensions(case: Case, lead: tuple[int, ...]):
    twin = case.twin()
    x = torch.randn(*lead, IN, dtype=torch.float64)
    assert_same(case.layer(twin=twin), twin, x)
    if len(lead) > 1:
        assert_same(case.layer(twin=twin), twin, x.transpose(0, 1))


@pytest.mark.parametrize("case", PER_FORMAT + LINEARS, ids=str)
def test_another_batch_than_planned(case: Case):
    twin = case.twin()
    layer = case.layer(twin=twin)
    for batch in (1, 5):
        assert_same(layer, twin, example(case, batch))


@pytest.mark.parametrize("case", PER_FORMAT + LINEARS, ids=str)
def test_an_empty_batch(case: Case):
    twin = case.twin().double()
    x = example(case, 0)
    assert case.layer()(x).shape == twin(x).shape


@pytest.mark.parametrize("case", PER_FORMAT, ids=str)
def test_a_single_image_without_a_batch(case: Case):
    twin = case.twin()
    assert_same(case.layer(twin=twin), twin, example(case)[0])


@pytest.mark.parametrize("case", PER_FORMAT, ids=str)
def test_another_image_size_than_planned(case: Case):
    twin = case.twin(padding=1, stride=2)
    x = torch.randn(2, IN, 11, 4, dtype=torch.float64)
    layer = case.layer(twin=twin)
    assert_same(layer, twin, x)
    assert layer.out_size((11, 4)) == tuple(twin(x).shape[2:])


@pytest.mark.parametrize("kind", SHAPES)
def test_the_dense_format_is_no_special_case(kind: str):
    case = Case("dense", "channels", "merged", kind)
    twin = case.twin()
    graph = case.graph()
    cores = [core.detach() for core in random_cores(graph)]
    x = example(case)
    planner = Planner(tuple(x.shape), 2, Rates())
    layer = (FactorisedConv if kind == "conv" else FactorisedLinear)(
        "dense", graph, twin.weight.shape, cores, twin.bias, planner, twin
    ).double()
    assert_close(layer.to_dense(), cores[0])
    assert_same(layer, twin, x)


@pytest.mark.parametrize("plan", ["chain", "dense"])
@pytest.mark.parametrize("case", PER_FORMAT + [case for case in LINEARS if case.layout == "split"], ids=str)
def test_compiles_to_one_graph(case: Case, plan: str):
    torch.compiler.reset()  # the limit on recompilations counts all layers of a process together
    layer, x = case.layer(plan=plan), example(case).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected, found = layer(x), compiled(x)
    assert_close(found, expected)
    for ours, theirs in zip(
        *(torch.autograd.grad(y.sum(), [x, *layer.parameters()]) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


def test_against_a_formula_that_shares_nothing_with_the_product():
    case = Case("tucker", "channels", "open", "conv")
    layer = case.layer()
    x, weight = example(case), einsum_dense(layer.graph, layer.tensors())
    columns = F.unfold(x, TAPS).unflatten(1, (IN, TAPS[0] * TAPS[1]))
    found = torch.einsum("bikp,oik->bop", columns, weight.flatten(2)) + layer.bias[:, None]
    assert_close(layer(x).flatten(2), found)


def test_parameters_are_the_cores_and_the_bias():
    layer = Case("tucker", "channels", "open", "conv").layer()
    assert set(dict(layer.named_parameters())) == {"cores.factor_i", "cores.factor_o", "cores.core", "bias"}
    assert sum(p.numel() for p in layer.parameters()) == 8 * 3 + 12 * 3 + 3 * 3 * 3 * 2 + 12
    assert "r_i=3" in repr(layer)
    assert "12x8x3x2" in repr(layer)


def test_settings_of_a_layer_that_is_held_as_cores_cannot_be_changed():
    model = tdcompress.compress(nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1)), "tt", 4, (8, 16, 16), keep=[])
    for name, value in {"stride": (1, 1), "padding": (2, 2), "dilation": (2, 2), "out_channels": 4}.items():
        with pytest.raises(AttributeError, match=f"{name} of a layer held as cores is settled"):
            setattr(model[0], name, value)
    model[0].note = "mine"
    assert (model[0].stride, model[0].padding, model[0].note) == ((2, 2), (1, 1), "mine")


def test_replicas_keep_what_they_merge_apart():
    layer = tdcompress.compress(nn.Sequential(nn.Linear(32, 32)), "tt", 4, (32,), keep=[])[0]
    replica = layer._replicate_for_data_parallel()
    assert replica.kept is not layer.kept


@pytest.mark.parametrize(
    "case", [Case("tt", "paired", "merged", "conv"), Case("tt", "matrix", "merged", "linear")], ids=str
)
def test_a_bias_that_is_computed(case: Case):
    layer, x = case.layer().eval(), example(case)
    nn.utils.prune.l1_unstructured(layer, "bias", 0.5)
    with torch.no_grad():
        for factor in (1.0, 1.0, 3.0):
            layer.bias_orig.mul_(factor)
            bias = layer.bias_orig * layer.bias_mask
            found, weight = layer(x), einsum_weight(layer)
            assert_close(found, F.linear(x, weight, bias) if x.dim() == 2 else F.conv2d(x, weight, bias))
