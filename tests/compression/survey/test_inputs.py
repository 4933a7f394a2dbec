"""What a model may be shown, what it is afterwards, and what is said where it cannot be compressed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


class Two(nn.Module):
    """Two inputs, one of tokens; a layer is called twice, by keyword, another one never."""

    def __init__(self):
        super().__init__()
        self.tokens, self.image = nn.Embedding(10, 16), nn.Conv2d(8, 16, 3)
        self.norm, self.drop = nn.BatchNorm2d(16), nn.Dropout(0.5)
        self.mix, self.unused, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, tokens: Tensor, image: Tensor, scale: float = 1.0) -> Tensor:
        seen = self.norm(self.image(image)).mean((2, 3))
        return self.out(self.drop(self.mix(input=self.mix(input=self.tokens(tokens).mean(1) + seen)))) * scale


def shown(batch: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randint(10, (batch, 5)), torch.randn(batch, 8, 6, 6)


AS = {
    "tuple": lambda tokens, image: (tokens, image),
    "list": lambda tokens, image: [tokens, image, 2.0],
    "keywords": lambda tokens, image: {"image": image, "tokens": tokens, "scale": 2.0},
}


@pytest.mark.parametrize("kind", AS)
def test_several_inputs(kind: str):
    model = tdcompress.compress(Two(), "tt", 3, example_inputs=AS[kind](*shown()), keep=["out", "tokens"], init="fit")
    assert list(factorised(model)) == ["image", "mix"]
    assert model.eval()(*shown(3)).shape == (3, 4)
    counts = tdcompress.count(model, example_inputs=AS[kind](*shown()))
    macs = {layer["name"]: layer["dense_macs"] for layer in counts["layers"]}
    assert macs["image"] == 16 * 8 * 9 * 4 * 4 and macs["mix"] == 2 * 16 * 16  # called twice
    twice = tdcompress.count(model, example_inputs=AS[kind](*shown(2)))
    assert twice["dense_macs"] == 2 * counts["dense_macs"]
    folded = tdcompress.fold(model, example_inputs=AS[kind](*shown()))
    given = shown(2)
    torch.testing.assert_close(folded(*given), model(*given), rtol=1e-4, atol=1e-5)


def test_one_tensor_is_what_its_shape_is():
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 4))

    by_shape = tdcompress.compress(net(), "tt", 3, (8, 6, 6))
    torch.manual_seed(1)
    by_example = tdcompress.compress(net(), "tt", 3, example_inputs=torch.rand(1, 8, 6, 6))
    assert tdcompress.count(by_shape, (8, 6, 6)) == tdcompress.count(by_example, example_inputs=torch.rand(1, 8, 6, 6))
    assert by_shape[2].planner == by_example[2].planner  # for a hundred images
    batch = tdcompress.compress(net(), "tt", 3, example_inputs=torch.rand(7, 8, 6, 6))
    assert batch[2].planner.batch_size == 1 and batch[2].planner.input_shape == (7, 16, 4, 4)


def test_it_leaves_no_trace():
    model = Two().train()
    model.drop.eval()
    model.mix.weight.requires_grad_(False)
    calls = []
    model.mix.register_forward_hook(lambda layer, args, out: calls.append("after"))
    model.mix.register_forward_pre_hook(lambda layer, args: calls.append("before"))
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    tdcompress.count(model, example_inputs=shown())
    expected = torch.manual_seed(3) and shown() and torch.rand(3)
    torch.manual_seed(3)
    tdcompress.count(model, example_inputs=shown())
    assert torch.equal(torch.rand(3), expected)  # as if nothing had drawn
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training and not model.drop.training and not model.mix.weight.requires_grad
    assert len(model.mix._forward_hooks) == len(model.mix._forward_pre_hooks) == 1


def test_hooks_flags_and_frozen_weights_are_kept():
    model, calls = Two(), []
    model.mix.register_forward_hook(lambda layer, args, kwargs, out: calls.append(kwargs), with_kwargs=True)
    model.mix.register_full_backward_hook(lambda layer, grad_in, grad_out: calls.append("gradient"))
    model.mix.weight.requires_grad_(False)
    model.image.eval()
    tdcompress.compress(model, "tt", 3, example_inputs=shown(), keep=["out", "tokens"])
    assert set(factorised(model)) == {"image", "mix"}
    assert not any(core.requires_grad for core in model.mix.tensors()) and model.mix.bias.requires_grad
    assert not model.image.training and model.mix.training
    calls.clear()
    model(*shown(2)).sum().backward()
    assert [type(call) for call in calls] == [dict, dict, str, str]


def test_a_weight_that_is_cores_is_read_and_not_written():
    model = tdcompress.compress(Two(), "tt", 3, example_inputs=shown(), keep=["out", "tokens"])
    torch.testing.assert_close(model.mix.weight, model.mix.to_dense())
    for value in (nn.Parameter(torch.zeros(16, 16)), torch.zeros(16, 16)):
        with pytest.raises(AttributeError, match="a weight held as cores cannot be set: write to the cores"):
            model.mix.weight = value


def test_the_report_says_what_became_of_each_layer():
    model = Two()
    model.image = nn.utils.parametrizations.weight_norm(model.image)
    tdcompress.compress(model, "tt", 3, example_inputs=shown(), keep=["out", "tokens"])
    found = tdcompress.report(model)
    rows = {layer["name"]: layer for layer in found.counts["layers"]}
    assert rows["mix"]["format"] == "tt" and rows["mix"]["parameters"] < rows["mix"]["dense_parameters"] == 256
    assert rows["out"]["reason"] == "kept"
    assert rows["image"]["reason"].endswith("remove_parametrizations(layer, 'weight')")
    assert "unused" not in rows
    assert found.counts == tdcompress.count(model, example_inputs=shown())
    table = str(found).splitlines()
    assert len(table) == 1 + len(rows) + 1 and "256 => " in str(found) and "dense (kept)" in str(found)
    with pytest.raises(ConfigError, match=r"this Two was not compressed; tdcompress\.count says what it holds"):
        tdcompress.report(Two())


def linear(**settings: torch.device | torch.dtype) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16, **settings), nn.Linear(16, 16, **settings))


def inferring() -> nn.Module:
    with torch.inference_mode():
        return linear()


BAD = {
    "neither": (linear, {}, "say what the model takes: input_shape or example_inputs, one of them"),
    "both": (linear, {"input_shape": (16,), "example_inputs": torch.zeros(1, 16)}, "input_shape or example_inputs"),
    "another type": (
        linear,
        {"example_inputs": torch.zeros(1, 16, dtype=torch.float64)},
        r"cannot take example_inputs \(float64 \(1, 16\)\): .*dtype",
    ),
    "another device": (
        linear,
        {"example_inputs": torch.zeros(1, 16, device="meta")},
        "example_inputs are on meta, the model is on cpu: bring them to one device",
    ),
    "another shape": (linear, {"input_shape": (15,)}, r"cannot take an input of shape \(15,\): mat1 and mat2 shapes"),
    "no shape": (linear, {"input_shape": (1.5,)}, "holds what is no whole number; see example_inputs"),
    "an unknown keyword": (
        linear,
        {"example_inputs": {"x": torch.zeros(1, 16)}},
        r"cannot take example_inputs \(x=float32 \(1, 16\)\): .* unexpected keyword argument 'x'",
    ),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)), {"input_shape": (16,)}, "0.weight has no shape yet: show the"),
    "meta": (
        lambda: linear(device=torch.device("meta")),
        {"input_shape": (16,)},
        "0.weight is on the meta device, without values: load",
    ),
    "inference": (inferring, {"input_shape": (16,)}, "0.weight was made in inference mode: build the model outside"),
    "no parameters": (nn.ReLU, {"input_shape": (16,)}, "ReLU has no parameters, so there is nothing to compress"),
    "twice": (
        lambda: tdcompress.compress(linear(), "tt", 3, (16,), keep=[]),
        {"input_shape": (16,)},
        r"no layer would be held as cores \(0, 1: it holds cores already\)",
    ),
    "all kept": (linear, {"input_shape": (16,), "keep": ["*"]}, r"no layer would be held as cores \(0, 1: kept\)"),
    "no layer": (
        lambda: nn.Sequential(nn.LayerNorm(16)),
        {"input_shape": (16,)},
        r"held as cores \(none with a weight of two axes is reached\)",
    ),
    "too many ranks": (linear, {"input_shape": (16,), "rank": [2, 2], "keep": []}, "layer 0: rank=2-2 has 2 sizes"),
    "too many ranks of a layer": (
        linear,
        {"input_shape": (16,), "layers": {"1": {"rank": [2, 2]}}, "keep": []},
        "layer 1: rank=2-2 has 2 sizes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_and_nothing_changed(name: str):
    make, given, message = BAD[name]
    model = make()
    layers = dict(model.named_modules())
    with pytest.raises(ConfigError, match=message) as error:
        tdcompress.compress(model, "tt", **{"rank": 3, "keep": [], "layout": "matrix"} | given)
    assert "\n" not in str(error.value)
    assert dict(model.named_modules()) == layers
    assert not any("compression_trace" in vars(module) for name, module in layers.items()) or name == "twice"


def test_the_dense_format_may_swap_nothing():
    model = tdcompress.compress(linear(), "dense", 3, (16,))
    assert not factorised(model) and str(tdcompress.report(model)).count("dense") == 2
