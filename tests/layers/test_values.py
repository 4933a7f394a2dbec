"""Values of parameters: drawn anew as torch draws those of the dense layer, and noticed wherever they are written."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from cases import FACTORISED
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.contraction.cost import Rates

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS: dict[str, tuple[nn.Module, Tensor, float]] = {
    "linear": (nn.Linear(48, 64), torch.ones(2, 48), 1 / math.sqrt(3 * 48)),
    "convolution": (nn.Conv2d(24, 32, 3), torch.ones(1, 24, 5, 5), 1 / math.sqrt(3 * 24 * 9)),
    "in groups": (nn.Conv1d(48, 64, 3, groups=2), torch.ones(1, 48, 5), 1 / math.sqrt(3 * 24 * 3)),
    "transposed": (nn.ConvTranspose2d(24, 32, 3), torch.ones(1, 24, 5, 5), 1 / math.sqrt(3 * 32 * 9)),
    "embedding": (nn.Embedding(90, 64, padding_idx=3), torch.arange(4)[None], 1.0),
}
"""A layer, an input, and the standard deviation of its weight as torch's documentation gives it."""


def compressed(layer: nn.Module, x: Tensor, format: str = "tt") -> Any:
    model = nn.Sequential(copy.deepcopy(layer))
    settings: dict[str, Any] = {"keep": [], "allow_larger": True, "rates": Rates()}
    return tdcompress.compress(model, format, 3, example_inputs=x, **settings)[0]


@pytest.mark.parametrize("format", FACTORISED)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_begins_again_as_torchs_does(name: str, format: str):
    layer, x, deviation = LAYERS[name]
    torch.manual_seed(0)
    ours = compressed(layer, x, format)
    cores, bias = [core.clone() for core in ours.tensors()], None if ours.bias is None else ours.bias.clone()
    names = [*ours.state_dict()]
    with torch.no_grad():
        for core in ours.tensors():
            core.mul_(5)  # as if trained
    ours.reset_parameters()
    rows = torch.arange(len(ours.weight)) != getattr(ours, "padding_idx", -1)
    assert float(ours.weight.detach()[rows].std()) == pytest.approx(deviation, rel=0.1)
    assert [*ours.state_dict()] == names and all(core.requires_grad for core in ours.tensors())
    assert not any(torch.equal(core, old) for core, old in zip(ours.tensors(), cores, strict=True))
    assert bias is None or not torch.equal(ours.bias, bias)
    assert not ours.weight[~rows].any()


@pytest.mark.parametrize("whole", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_begins_again_as_torchs_does(whole: type[nn.RNNBase]):
    torch.manual_seed(0)
    ours = compressed(whole(96, 64, proj_size=32) if whole is nn.LSTM else whole(96, 64), torch.ones(3, 2, 96))
    biases = [bias.clone() for name, bias in ours.named_parameters() if "bias" in name]
    ours.reset_parameters()
    for name in factorised(ours):
        weight = getattr(ours, f"weight_{name}")
        assert float(weight.detach().std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.1), name
    after = [bias for name, bias in ours.named_parameters() if "bias" in name]
    assert not any(torch.equal(a, b) for a, b in zip(after, biases, strict=True))
    assert all(float(bias.abs().max()) <= 1 / 8 for bias in after)


def test_attention_begins_again_as_torchs_does():
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.attention(x, x, x)[0]
            return found

    torch.manual_seed(0)
    ours = compressed(Attends(), torch.ones(3, 2, 48)).attention
    nn.init.ones_(ours.in_proj_bias)
    ours._reset_parameters()
    assert float(ours.in_proj_weight.detach().std()) == pytest.approx(math.sqrt(2 / (48 + 3 * 48)), rel=0.1)  # Xavier's
    assert not ours.in_proj_bias.any()


def test_a_vector_that_parameters_are_parts_of():
    layer, x, _ = LAYERS["linear"]
    ours = compressed(layer, x).eval()
    parameters = [*ours.parameters()]
    vector = nn.utils.parameters_to_vector(parameters).detach()
    with torch.no_grad():
        for _ in range(3):
            vector.mul_(1.5)  # in place
            nn.utils.vector_to_parameters(vector, parameters)
            torch.testing.assert_close(ours(x), x @ ours.to_dense().T + ours.bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["in groups", "convolution", "transposed"])
def test_autocast_leaves_nothing_behind(name: str):
    layer, x, _ = LAYERS[name]
    ours = compressed(layer, x).eval()
    with torch.no_grad():
        wanted = ours(x)
        ours.train().eval()
        with torch.autocast("cpu", torch.bfloat16):
            ours(x)
        assert torch.equal(ours(x), wanted)


@pytest.mark.parametrize("name", ["convolution", "linear", "embedding"])
def test_what_is_kept_does_not_grow_with_the_shapes_of_inputs(name: str):
    layer, x, _ = LAYERS[name]
    ours = compressed(layer, x, "cp").eval()
    with torch.no_grad():
        for size in range(1, 60):
            shape = {"linear": (2, size, 48), "convolution": (1, 24, 4 + size, 5), "embedding": (2, 3 * size)}[name]
            ours(torch.zeros(shape, dtype=x.dtype))
    assert len(ours.kept._found) <= 32


@pytest.mark.parametrize("computed", ["prune", "weight_norm", "spectral_norm"])
@pytest.mark.parametrize("format", FACTORISED)
def test_a_core_that_hooks_compute_is_trained_as_what_they_compute(format: str, computed: str):
    layer = compressed(nn.Linear(48, 64), torch.ones(2, 48), format)
    core, x = layer.graph.cores[0].name, torch.randn(5, 48)
    {
        "prune": lambda: nn.utils.prune.l1_unstructured(layer.cores, core, 0.5),
        "weight_norm": lambda: nn.utils.weight_norm(layer.cores, core),
        "spectral_norm": lambda: nn.utils.spectral_norm(layer.cores, core),
    }[computed]()
    own = dict(layer.cores.named_parameters())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    before = layer(x)
    for _ in range(2):  # a second backward pass, which needs what was computed anew
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        assert all(parameter.grad is not None for parameter in own.values())
        optimizer.step()
    layer.eval()
    assert not torch.allclose(layer(x), before)
    torch.testing.assert_close(layer(x), x @ layer.to_dense().T + layer.bias)
    if computed == "prune":
        stored, mask = layer.cores.get_parameter(f"{core}_orig"), layer.cores.get_buffer(f"{core}_mask")
        torch.testing.assert_close(layer.tensors()[0], stored * mask)
    assert layer.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("infers", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_autocast_lets_double_precision_be(name: str, infers: bool):
    layer, x, _ = LAYERS[name]
    new = compressed(copy.deepcopy(layer).double(), x.double() if x.is_floating_point() else x).train(not infers)
    x = x.double() if x.is_floating_point() else x
    with torch.set_grad_enabled(not infers), torch.autocast("cpu", torch.bfloat16):
        found = new(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, new(x))
