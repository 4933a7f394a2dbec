"""Fits by data, against least squares on the inputs themselves and against torch's own unfolding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import FACTORISED, IN, OUT, TAPS, Case, einsum_weight, layout_of
from networks import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from tdcompress import compress
from tdcompress.compression.metric import batches, estimate_again, moments
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.fitting.decompose import decompose
from tdcompress.tensor.fitting.metric import fit_in_metric
from tdcompress.tensor.graph import Graph


def inputs(*shape: int, seed: int = 0) -> Tensor:
    """Strongly correlated inputs: few directions of the channels, the second dimension, hold most of the energy."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, shape[1])
    mixed = torch.linalg.qr(torch.randn(shape[1], shape[1], generator=generator))[0] * scales
    return torch.einsum("bc...,dc->bd...", torch.randn(shape, generator=generator), mixed)


def lost(dense: nn.Module, new: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        wanted = dense(x)
        return float((new(x) - wanted).norm() / wanted.norm())


def both(layer: nn.Module, x: Tensor, format: str, **settings: Any) -> tuple[float, float]:
    """What a layer's outputs lose by a plain fit, and by one in the metric of ``x``."""
    settings = {"rank": 4, "keep": [], "allow_larger": True, "init": "fit", **settings}
    torch.manual_seed(0)
    plain = compress(nn.Sequential(copy.deepcopy(layer)), format, example_inputs=x, **settings)
    torch.manual_seed(0)
    fitted = compress(nn.Sequential(copy.deepcopy(layer)), format, example_inputs=x, data=[x], **settings)
    return lost(layer, plain, x), lost(layer, fitted, x)


WAYS = [
    *((format, layout_of(format, "channels")) for format in FACTORISED),
    *(("tt", layout) for layout in ("matrix", "split", "paired")),
]


@pytest.mark.parametrize(("format", "layout"), WAYS)
def test_data_lowers_what_the_outputs_lose(format: str, layout: str):
    torch.manual_seed(1)
    settings = {"layout": layout, "factors": 2, "rank": 2, "init": "rough"}
    plain, fitted = both(nn.Conv2d(12, 8, 2, bias=False), inputs(4, 12, 6, 6), format, **settings)
    assert fitted < 0.95 * plain


LAYERS = {
    "linear": (nn.Linear(16, 12, bias=False), inputs(200, 16)),
    "conv1d": (nn.Conv1d(16, 12, 3, stride=2, dilation=2, padding="valid", bias=False), inputs(4, 16, 50)),
    "conv3d": (nn.Conv3d(8, 12, 2, bias=False), inputs(2, 8, 5, 5, 5)),
    "grouped": (nn.Conv2d(32, 24, 3, groups=2, padding=1, padding_mode="reflect", bias=False), inputs(2, 32, 8, 8)),
    "transposed": (nn.ConvTranspose2d(16, 12, 2, stride=2, bias=False), inputs(2, 16, 8, 8)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_is_fitted_by_its_inputs(kind: str):
    plain, fitted = both(*LAYERS[kind], "tt", layout="channels")
    assert fitted < 0.95 * plain


def test_inputs_of_two_groups_of_a_transposed_convolution_never_meet():
    """Each output is of one group, so what the inputs of two have in common says nothing of the error."""
    torch.manual_seed(0)
    layer, x = nn.ConvTranspose2d(16, 24, 3, groups=2, bias=False), inputs(2, 16, 8, 8)
    plain, fitted = both(layer, x, "tt", layout="paired")
    assert fitted < 0.95 * plain
    found = moments(nn.Sequential(layer), {"0": ["0"]}, batches(layer, [x]))["0"].value
    rows = x.movedim(1, -1).reshape(-1, 16).double()
    whole = rows.T @ rows / len(rows)
    assert torch.allclose(found[:8, :8], whole[:8, :8], rtol=1e-4, atol=1e-8) and not found[8:, :8].any()


def test_cores_that_a_fit_gives_in_another_order_of_memory():
    def turned(graph: Graph, weight: Tensor) -> list[Tensor]:
        cores = decompose(graph, weight)
        return [core.permute(*range(core.dim())[::-1]).contiguous().permute(*range(core.dim())[::-1]) for core in cores]

    torch.manual_seed(0)
    layer, x = nn.Conv2d(IN, OUT, TAPS, bias=False), inputs(4, IN, 8, 8)
    moment = moments(nn.Sequential(layer), {"0": ["0"]}, batches(layer, [x]))["0"]
    graph = Case("tt", "channels", "merged", "conv").graph(3)
    found = [fit_in_metric(graph, layer.weight.detach(), moment, fit) for fit in (decompose, turned)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))


class ForZeros(nn.Sequential):
    """Layers that only zeros go through."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.any() else super().forward(x)


def test_layers_without_an_input_and_inference_mode():
    with pytest.raises(ConfigError, match="layer 0: no batch of data= reaches it"):
        compress(ForZeros(nn.Linear(16, 16)), "tt", 2, (16,), keep=[], data=[torch.ones(1, 16)])
    layer, x = nn.Conv2d(16, 12, 3, bias=False), inputs(2, 16, 6, 6)
    with torch.inference_mode():
        plain, fitted = both(layer, x.clone(), "tt")
    assert fitted < plain


def test_rows_that_are_looked_up_often_count_more():
    torch.manual_seed(0)
    layer = nn.Embedding(30, 16)
    tokens = torch.randint(3, (400,))  # of ten times as many
    plain, fitted = both(layer, tokens, "tucker", layout="channels", rank=6)
    assert fitted < 0.3 * plain


def test_a_matrix_is_fitted_as_by_least_squares():
    """By the Eckart-Young theorem for W X, which numpy's singular values of the outputs give."""
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 12, bias=False), inputs(500, 16)
    _, fitted = both(layer, x, "tt", layout="channels", rank=4)
    values = np.linalg.svd(layer(x).detach().double().numpy(), compute_uv=False)
    assert fitted == pytest.approx(np.sqrt((values[4:] ** 2).sum() / (values**2).sum()), rel=0.02)


def test_what_the_rank_can_hold_is_exact():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 12, 3, bias=False)
    x = inputs(4, 16, 9, 9)
    plain, fitted = both(layer, x, "tucker", rank=16)
    assert max(plain, fitted) < 1e-4


def test_the_moment_is_that_of_unfolded_inputs():
    x = inputs(2, 8, 9, 7)
    layer = nn.Conv2d(8, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    model = nn.Sequential(layer)
    found = moments(model, {"0": ["0"]}, batches(model, [(x, torch.zeros(2))]))["0"].value
    columns = F.unfold(x, (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)).movedim(1, 0).flatten(1).double()
    assert torch.allclose(found, columns @ columns.T / columns.shape[1], rtol=1e-4, atol=1e-8)


def test_the_moment_knows_of_padding_that_follows_from_the_size():
    x, model = inputs(50, 4, 2, 2), nn.Sequential(Conv2dSame(4, 5, 3, stride=2))
    found = moments(model, {"0": ["0"]}, batches(model, [x]))["0"].value
    columns = F.pad(x, (0, 1, 0, 1)).movedim(0, 3).flatten(0, 2).double()
    assert torch.allclose(found, columns @ columns.T / 50, rtol=1e-4, atol=1e-8)


def test_inputs_come_as_tensors_tuples_and_keywords():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 12)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(a + b)

    a, b = inputs(50, 16), inputs(50, 16, seed=1)
    whole = (a + b).double()
    for data in ([((a, b), None)], [{"a": a, "b": b}], iter([({"b": b, "a": a}, 0, "x")])):
        model = Two()
        found = moments(model, {"layer": ["layer"]}, batches(model, data))["layer"].value
        assert torch.allclose(found, whole.T @ whole / 50, rtol=1e-4, atol=1e-8)


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16))


def test_statistics_are_those_of_the_compressed_network():
    data = [inputs(8, 3, 9, 9, seed=seed) for seed in range(3)]
    model = normed()
    model[1].eval()
    momentum, flags = model[4].momentum, [module.training for module in model.modules()]
    compress(model, "tucker", 4, (3, 9, 9), data=data, keep=["0"])
    assert list(factorised(model)) == ["3"]
    assert [module.training for module in model.modules()][: len(flags)] == flags and model[4].momentum == momentum
    assert int(model[4].num_batches_tracked) == 0  # as it was
    weight, means, variances = einsum_weight(model[3]), [], []
    for x in data:
        first = F.batch_norm(model[0](x), None, None, model[1].weight, model[1].bias, training=True)
        out = F.conv2d(torch.relu(first), weight.reshape(16, 16, 3, 3), model[3].bias)
        means.append(out.mean((0, 2, 3)))
        variances.append(out.var((0, 2, 3)))
    assert torch.allclose(model[4].running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert torch.allclose(model[4].running_var, torch.stack(variances).mean(0), rtol=1e-3)


def test_data_and_what_modules_keep_of_them_stay():
    class Writes(nn.Sequential):
        seen = 0

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(x.sub_(1))

    model, batch = Writes(*normed()), torch.ones(2, 3, 9, 9)
    compress(model, "tucker", 4, (3, 9, 9), data=[batch], keep=["0"])
    assert list(factorised(model)) == ["3"] and model.seen == 0 and bool((batch == 1).all())


def test_a_batch_that_fails_leaves_the_statistics():
    model = normed()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match="the model cannot take a batch of data="):
        estimate_again(model, batches(model, [torch.zeros(1, 3, 5, 5), torch.zeros(1, 4, 5, 5)]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        (torch.zeros(1, 3, 9, 9), {}, "data= takes an iterable of batches"),
        ([], {}, "data= holds no batch"),
        ([("x", 1)], {}, "data= holds a batch without tensors"),
        ([None], {}, "data= holds a batch without tensors"),
        ([torch.zeros(1, 3, 3, 3)], {}, "layer 1: a batch of data= gives it no two values of a channel"),
        ([torch.zeros(0, 3, 9, 9)], {}, r"a batch of data= \(float32 \(0, 3, 9, 9\)\) is an empty batch"),
        ([torch.zeros(1, 4, 9, 9)], {}, "the model cannot take a batch of data="),
        ([torch.full((1, 3, 9, 9), float("nan"))], {}, "layer 3: what data= gives it is not finite"),
        ([torch.zeros(1, 3, 9, 9)], {"init": "variance"}, "init=variance fits none"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(data: Any, settings: dict[str, Any], said: str):
    model = normed()
    with pytest.raises(ConfigError, match=said) as error:
        compress(model, "tucker", 4, (3, 9, 9), data=data, keep=["0"], **settings)
    assert "\n" not in str(error.value) and not factorised(model)


@pytest.mark.parametrize("method", FACTORISED)
def test_a_weight_of_zeros_is_left_as_it_is(method: str):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    nn.init.zeros_(model[2].weight)
    compress(model, method, 8, (64,), data=[torch.randn(50, 64)], keep=[], allow_larger=True)
    assert not model[2].to_dense().any()
    model(torch.randn(3, 64)).square().sum().backward()
    assert any(core.grad.any() for core in model[2].cores.values())


def test_a_padding_that_was_set_later_counts():
    """As backbones do it that are given dilated convolutions in place of strides."""
    x = torch.rand(16, 8, 6, 6, generator=torch.Generator().manual_seed(0)) + 1
    torch.manual_seed(0)
    later = nn.Conv2d(8, 32, 3)
    later.padding, later.dilation = (2, 1), (2, 1)
    at_once = nn.Conv2d(8, 32, 3, padding=(2, 1), dilation=(2, 1))
    at_once.load_state_dict(later.state_dict())
    one, other = (moments(nn.Sequential(layer), {"0": ["0"]}, batches(layer, [x]))["0"] for layer in (later, at_once))
    assert torch.equal(one.value, other.value)


def test_packed_sequences_are_one_input_each():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.LSTM(32, 48)), torch.randn(5, 3, 32)
    packed = pack_padded_sequence(x, torch.tensor([5, 4, 2]))
    (given,) = batches(model, [packed])
    assert type(given.args[0]) is PackedSequence
    compress(model, "tt", 4, example_inputs=packed, init="fit", data=[packed, (packed, None)])
    assert model(packed)[0].data.shape == (11, 48)


def test_a_weight_of_two_layers_is_fitted_by_the_inputs_of_both():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return self.a(x), self.b(z)

    x, z = inputs(200, 16), inputs(50, 16, seed=1)
    model = Two()
    found = moments(model, {"a": ["a", "b"]}, batches(model, [((x, z), None)]))["a"].value
    both = torch.cat((x, z)).double()
    assert torch.allclose(found, both.T @ both / len(both), rtol=1e-4, atol=1e-8)
    errors = []
    for data in (None, [((x, z), None)]):
        torch.manual_seed(0)
        model = Two()
        wanted = model(x, z)
        compress(model, "tt", 4, example_inputs=(x, z), keep=[], layout="channels", init="fit", data=data)
        errors.append([float((a - b).norm() / b.norm()) for a, b in zip(model(x, z), wanted, strict=True)])
    assert all(fitted < 0.9 * plain for plain, fitted in zip(*errors, strict=True))
