"""Which layers are held as cores: classes, subclasses, and layers that are not what their class says."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import KINDS, Kind, Weight, factorised, hold, kind_of, why_not
from tdcompress.layers.linear import FactorisedLinear
from tdcompress.tensor.errors import ConfigError


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019): the weight that is applied is not the one that is kept."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, self.weight - mean, self.bias, self.stride, self.padding)


class Same(nn.Conv2d):
    """TensorFlow's "same": padded at the end."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(F.pad(x, (0, 1, 0, 1)), weight, bias)


class SamePadded(nn.Conv2d):
    """The same in a ``forward`` of its own, as in timm."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Named(nn.Conv2d):
    """Changes nothing that matters."""

    def __init__(self, channels):
        super().__init__(channels, channels, 3)
        self.note = "mine"

    def extra_repr(self):
        return "named"

    def reset_parameters(self):
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def own(self):
        return self.note


class Scaled(nn.Linear):
    def reset_parameters(self):  # torch's own would draw into the product
        nn.init.normal_(self._parameters["weight"])
        nn.init.normal_(self.bias)

    @property
    def weight(self):
        if "weight" not in self._parameters:
            raise AttributeError
        return self._parameters["weight"] * 2


def patched() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.forward = types.MethodType(lambda self, x: F.linear(x, self.weight * 2), layer)
    return layer


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)


LEFT = {
    "standardised": (lambda: Standardised(8, 8, 3), "Standardised redefines forward of Conv2d"),
    "same": (lambda: Same(8, 8, 2), "Same redefines _conv_forward of Conv2d"),
    "same padded": (lambda: SamePadded(8, 8, 2), "SamePadded redefines forward of Conv2d"),
    "scaled": (lambda: Scaled(8, 8), "Scaled redefines weight of Linear"),
    "patched": (patched, "this Linear has forward of its own"),
    "parametrised": (
        lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
        "its weight is parametrised: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    ),
    "spectral": (
        lambda: spectral_norm(nn.Linear(8, 8)),
        "its weight is computed by spectral norm: torch.nn.utils.remove_spectral_norm(layer)",
    ),
    "pruned": (pruned, "its weight is computed by pruning: torch.nn.utils.prune.remove(layer, 'weight')"),
    "embedding": (lambda: nn.EmbeddingBag(8, 8), "EmbeddingBag cannot be held as cores"),
}


def example(layer: nn.Module) -> torch.Tensor:
    if isinstance(layer, nn.EmbeddingBag):
        return torch.arange(6)
    return torch.randn(2, 8, 6, 6) if isinstance(layer, nn.Conv2d) else torch.randn(2, 8)


@pytest.mark.parametrize("name", LEFT)
def test_what_computes_something_else_is_left_and_named(name: str):
    make, reason = LEFT[name]
    layer = make()
    assert kind_of(layer) is None and str(why_not(layer)).startswith(reason)


@pytest.mark.parametrize("name", sorted(LEFT.keys() - {"embedding"}))
def test_a_layer_that_is_left_computes_what_it_did(name: str):
    layer = LEFT[name][0]()
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 8)).eval()
    x = example(layer)
    with torch.no_grad():
        model(x)
        before = layer(x)
    tdcompress.compress(model, "tt", 2, tuple(x.shape[1:]), keep=["2"], allow_larger=True, init="fit")
    assert model[0] is layer
    torch.testing.assert_close(layer(x), before)
    (row, *_) = tdcompress.count(model, x.shape[1:])["layers"]
    assert row["plan"] == "dense" and row["reason"].startswith(LEFT[name][1])


@pytest.mark.parametrize("layer", [nn.Conv1d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 8), Named(8)], ids=repr)
def test_torchs_own_and_what_adds_nothing_to_it(layer: nn.Module):
    assert why_not(layer) is None and kind_of(layer) is not None


SETTINGS = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    *("output_padding", "transposed", "in_features", "out_features", "note", "bias"),
)
READ = (
    nn.Conv1d(8, 12, 3, stride=2, padding=1),
    nn.Conv2d(8, 12, 3, padding="same", dilation=2),
    nn.Conv2d(8, 12, (3, 2), padding=1, padding_mode="circular"),
    nn.Conv3d(8, 12, 3, groups=2),
    nn.ConvTranspose2d(8, 12, 3, stride=2, output_padding=1, bias=False),
    nn.Linear(8, 12),
    Named(8),
)


@pytest.mark.parametrize("layer", READ, ids=repr)
def test_a_layers_settings_are_read_of_what_takes_its_place(layer: nn.Module):
    shape = (8,) if isinstance(layer, nn.Linear) else (8, 6, 6, 6)[: layer.weight.dim() - 1]
    new = tdcompress.compress(layer, "tt", 2, shape, keep=[], allow_larger=True)
    assert isinstance(new, Factorised)
    known = {name: getattr(layer, name) for name in SETTINGS if hasattr(layer, name)}
    assert {name: getattr(new, name) for name in known} == known and len(known) > 2
    assert new.weight.shape == layer.weight.shape


def test_a_linear_layer_of_timms_is_torchs():
    class Linear(nn.Linear):
        __module__, __qualname__ = "timm.layers.linear", "Linear"

        def forward(self, input):
            return F.linear(input, self.weight, self.bias)

    layer, x = Linear(8, 8), torch.randn(2, 8)
    new = tdcompress.compress(layer, "tt", 99, (8,), keep=[], init="fit", allow_larger=True)
    assert isinstance(new, FactorisedLinear)
    torch.testing.assert_close(new(x), layer(x), rtol=1e-4, atol=1e-4)


def test_a_lazy_layer_is_what_it_becomes():
    model = nn.Sequential(nn.LazyConv2d(12, 3), nn.Flatten(), nn.LazyLinear(4))
    model(torch.zeros(1, 8, 6, 6))
    tdcompress.compress(model, "tt", 2, (8, 6, 6), keep=["2"])
    assert list(factorised(model)) == ["0"]


def test_a_kind_of_ones_own_says_how_weight_and_bias_are_called():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel, self.shift = nn.Parameter(torch.randn(12, 8)), nn.Parameter(torch.randn(12))

        def forward(self, x):
            return F.linear(x, self.kernel, self.shift)

    layer, x = Own(), torch.randn(2, 8)
    hold(Own, Kind(FactorisedLinear, (Weight("kernel"),), bias="shift"))
    try:
        new = tdcompress.compress(layer, "tt", 99, (8,), keep=[], init="fit", allow_larger=True)
        assert isinstance(new, FactorisedLinear) and new.bias is layer.shift
        torch.testing.assert_close(new(x), layer(x), rtol=1e-4, atol=1e-4)
    finally:
        del KINDS[Own]


def test_hold_says_otherwise():
    class Quiet(nn.Conv2d):
        def forward(self, x):
            return super().forward(x)

    layer = Quiet(8, 12, 3)
    assert kind_of(layer) is None
    try:
        hold(Quiet, nn.Conv2d)
        model = nn.Sequential(layer)
        tdcompress.compress(model, "tt", 2, (8, 6, 6), keep=[])
        assert isinstance(model[0], Factorised)
    finally:
        del KINDS[Quiet]
    with pytest.raises(ConfigError, match="EmbeddingBag cannot be held as cores, known: Conv1d"):
        hold(Quiet, nn.EmbeddingBag)
    with pytest.raises(ConfigError, match=r"hold takes a subclass of torch\.nn\.Module"):
        hold(3, nn.Conv2d)


def test_a_layer_with_more_than_a_weight_and_a_bias_stays_dense():
    scaled, hooked, counted = nn.Linear(32, 32), nn.Linear(32, 32), nn.Conv2d(4, 4, 3)
    scaled.scale = nn.Parameter(torch.ones(32))
    hooked.norm = nn.LayerNorm(32)
    counted.register_buffer("seen", torch.zeros(()))
    pruned = prune.l1_unstructured(nn.Linear(32, 32), "bias", 0.5)
    constant = nn.Linear(32, 32)
    del constant.bias
    constant.register_buffer("bias", torch.zeros(32))
    watched, stepped = nn.Linear(32, 32), nn.Linear(32, 32)
    watched.weight.register_hook(lambda gradient: 0 * gradient)
    stepped.weight.register_post_accumulate_grad_hook(lambda weight: None)
    reasons = {
        watched: "hooks are registered on its weight",
        stepped: "hooks are registered on its weight",
        scaled: "this Linear has scale besides",
        hooked: "this Linear has norm besides",
        counted: "this Conv2d has seen besides",
        pruned: "this Linear has bias_mask, bias_orig besides",
        constant: "this Linear has bias besides",
    }
    assert {layer: why_not(layer) for layer in reasons} == reasons
    model = tdcompress.compress(nn.Sequential(pruned, nn.Linear(32, 32)), "tt", 4, (32,), keep=[])
    assert list(factorised(model)) == ["1"]
    assert why_not(nn.Linear(32, 32)) is None and why_not(nn.Linear(32, 32, bias=False)) is None
