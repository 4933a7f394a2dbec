"""What is said, in one line, of models and inputs that cannot be compressed; and that nothing changes then."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def linear(**settings: torch.device | torch.dtype) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16, **settings), nn.Linear(16, 16, **settings))


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("\nonly on Sundays\nand never on Mondays")


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
    "no shape": (linear, {"input_shape": (1.5,)}, "input_shape says the sizes of one input as whole numbers"),
    "no tuple": (linear, {"input_shape": 16}, "input_shape says the sizes of one input as whole numbers"),
    "no size": (linear, {"input_shape": (-1,)}, r"input_shape=\(-1,\) holds a size below one"),
    "empty": (linear, {"example_inputs": torch.zeros(0, 16)}, r"float32 \(0, 16\)\) is an empty batch: give one input"),
    "an unknown keyword": (
        linear,
        {"example_inputs": {"x": torch.zeros(1, 16)}},
        r"cannot take example_inputs \(x=float32 \(1, 16\)\): .* unexpected keyword argument 'x'",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(4)),
        {"input_shape": (16,)},
        "0.weight has no shape yet: call the model",
    ),
    "meta": (
        lambda: linear(device=torch.device("meta")),
        {"example_inputs": torch.zeros(1, 16)},
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
    "a layer that computes its weight, by name": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)), nn.Linear(16, 16)),
        {"input_shape": (16,), "layers": {"0": {"rank": 2}}, "keep": []},
        r"layers: 0 stays dense \(its weight is parametrised: .*remove_parametrizations\(layer, 'weight'\)\)",
    ),
    "cores of a layer that computes its weight": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)), nn.Linear(16, 16)),
        {"input_shape": (16,), "cores": {"0": {"core1": torch.zeros(16, 3), "core2": torch.zeros(3, 16)}}, "keep": []},
        r"cores: 0 stays dense \(its weight is parametrised",
    ),
    "raises": (
        lambda: nn.Sequential(nn.Linear(16, 16), Raising()),
        {"input_shape": (16,)},
        r"the model cannot take an input of shape \(16,\): only on Sundays",
    ),
    "too many ranks": (
        linear,
        {"input_shape": (16,), "rank": [2, 2], "keep": []},
        r"layer 0: rank=\[2, 2\] has 2 sizes",
    ),
    "too many ranks of a layer": (
        linear,
        {"input_shape": (16,), "layers": {"1": {"rank": [2, 2]}}, "keep": []},
        r"layer 1: rank=\[2, 2\] has 2 sizes",
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


def test_the_report_says_where_a_weight_is_put_together():
    for plan, together in (("dense", True), ("chain", False)):
        model = tdcompress.compress(linear(), "tt", 2, (16,), keep=["0"], plan=plan)
        (_, row) = tdcompress.report(model).counts["layers"]
        assert row["put_together"] is together
        assert ("tt, put together" in str(tdcompress.report(model))) is together


def test_what_is_no_model_of_layers():
    with pytest.raises(ConfigError, match=r"^a model is a torch\.nn\.Module, got function$"):
        tdcompress.compress(linear, "tt", 3, (16,))
    with pytest.raises(ConfigError, match="compress the model that was scripted"):
        tdcompress.compress(torch.jit.script(linear()), "tt", 3, (16,))


def test_a_report_is_of_the_layers_that_were_compressed():
    model = tdcompress.compress(linear(), "tt", 2, (16,))
    with pytest.raises(ConfigError, match="this Sequential was not compressed"):
        tdcompress.report(tdcompress.fold(model, (16,)))
    model[1] = nn.Linear(16, 4)
    with pytest.raises(ConfigError, match=r"^1: another layer than when the model was compressed"):
        tdcompress.report(model)
    assert tdcompress.count(model, (16,))["layers"][1]["dense_macs"] == 64


def test_the_dense_format_may_swap_nothing():
    model = tdcompress.compress(linear(), "dense", 3, (16,))
    assert not factorised(model)
    assert [layer["format"] for layer in tdcompress.report(model).counts["layers"]] == ["dense", "dense"]


def test_cores_that_are_made_while_inferring_are_trained_afterwards(tmp_path: Path):
    model = linear()
    with torch.inference_mode():
        tdcompress.compress(model, "tt", 4, (16,), keep=[])
        tdcompress.save(model, tmp_path / "model.safetensors")
        again = tdcompress.load(tmp_path / "model.safetensors", linear())
    for made in (model, again):
        made(torch.randn(3, 16)).sum().backward()
        assert all(parameter.grad is not None for parameter in made.parameters())
