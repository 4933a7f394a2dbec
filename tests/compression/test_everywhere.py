"""Counts and budgets of whole models, before and after the swap, wherever the batch lies and whoever shares what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


class Frames(nn.Module):
    """Frames merged into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(0, 1)).mean((2, 3)).view(len(x), -1)


class StepsFirst(nn.Module):
    """Steps before the batch, as torch's transformer layers have it unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1))


class Query(nn.Module):
    """One layer applied to a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.a, self.b = nn.Parameter(torch.randn(1, 64)), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x) + self.a(self.query)


MODELS = {"frames": (Frames, (6, 16, 8, 8)), "steps first": (StepsFirst, (5, 16)), "query": (Query, (64,))}


@pytest.mark.parametrize("name", MODELS)
def test_dense_macs_are_those_before_the_swap(name: str):
    make, shape = MODELS[name]
    model = make().eval()
    before = tdcompress.count(model, shape)
    tdcompress.compress(model, "tt", 2, shape, keep=[])
    assert factorised(model)
    after = tdcompress.count(model, shape)
    assert after["dense_macs"] == before["macs"] == before["dense_macs"]
    assert after["dense_parameters"] == before["parameters"]
    assert after["activation_macs"] == before["activation_macs"]


@pytest.mark.parametrize("name", MODELS)
def test_a_budget_of_macs_is_met_wherever_the_batch_lies(name: str):
    make, shape = MODELS[name]
    model = tdcompress.compress(make().eval(), "tt", "macs:0.8", shape, keep=[])
    report = tdcompress.count(model, shape)
    assert report["macs"] == pytest.approx(0.8 * report["dense_macs"], rel=0.02)


def test_why_a_layer_that_is_never_called_is_dense():
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.conv.weight) * self.norm.weight.norm()

    rows = {row["name"]: row["reason"] for row in tdcompress.count(Apart(), (3, 8, 8))["layers"]}
    assert rows == dict.fromkeys(("conv", "norm"), "its weight is used without calling it")


@pytest.mark.parametrize("rank", ["2x", "macs:0.5"])
def test_a_budget_is_of_the_dense_network_though_a_part_is_held_already(rank: str):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    tdcompress.compress(model, "tt", 4, (64,), keep=["2"])
    tdcompress.compress(model, "tt", rank, (64,), keep=[])
    report = tdcompress.count(model, (64,))
    if rank == "2x":
        assert report["compression_ratio"] == pytest.approx(2, rel=0.02)
    else:
        assert report["macs"] == pytest.approx(0.5 * report["dense_macs"], rel=0.02)


def changed(**settings: object) -> nn.Conv2d:
    """A convolution whose settings are changed after it was made, as backbones are dilated."""
    layer = nn.Conv2d(4, 8, 3, padding=1)
    for name, value in settings.items():
        setattr(layer, name, value)
    return layer


@pytest.mark.parametrize(
    "settings",
    [{"dilation": (2, 2), "padding": (2, 2)}, {"padding": "same"}, {"padding": "valid"}, {"padding": 2, "stride": 2}],
    ids=str,
)
def test_settings_that_were_changed_later(settings: dict):
    twin, x = changed(**settings), torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        wanted = twin(x)
        layer = tdcompress.compress(twin, "tt", 99, (4, 9, 9), keep=[], allow_larger=True, init="fit")
        assert isinstance(layer, Factorised)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(tdcompress.fold(layer, (4, 9, 9))(x), wanted, rtol=1e-3, atol=1e-3)


def test_a_shared_bias_stays_shared():
    a, b = nn.Linear(64, 64), nn.Linear(64, 64)
    b.bias = a.bias
    model = nn.Sequential(a, nn.ReLU(), b)
    dense = tdcompress.count(model, (64,))["parameters"]
    tdcompress.compress(model, "tt", "4x", (64,), keep=[])
    assert model[0].bias is model[2].bias is a.bias
    report = tdcompress.count(model, (64,))
    assert report["dense_parameters"] == dense == 2 * 64 * 64 + 64
    assert report["compression_ratio"] == pytest.approx(4, rel=0.02)


def test_views_of_one_buffer_are_tied_only_where_they_overlap():
    base = torch.randn(2, 64, 64)
    a, b = nn.Linear(64, 64), nn.Linear(64, 64)
    a.weight, b.weight = nn.Parameter(base[0]), nn.Parameter(base[1])
    model = tdcompress.compress(nn.Sequential(a, b), "tt", 4, (64,), keep=[])
    assert list(factorised(model)) == ["0", "1"]
    c = nn.Linear(64, 64)
    other = nn.Module()
    other.register_buffer("copy", c.weight.detach())
    model = nn.Sequential(c, nn.Identity())
    model[1].other = other
    with pytest.raises(ConfigError, match=r"0: its weight is also that of 1\.other"):
        tdcompress.compress(model, "tt", 4, (64,), keep=[])
    assert not factorised(model)


def test_a_layer_that_is_used_twice_is_kept_by_either_name():
    layer = nn.Linear(64, 64)
    model = tdcompress.compress(nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(64, 64)), "tt", 4, (64,), keep=["2"])
    assert model[0] is model[2] is layer and list(factorised(model)) == ["3"]


def test_a_class_behind_torchs_own_counts_too():
    class Twice(nn.Module):
        def __call__(self, *args: object) -> object:
            return 2 * super().__call__(*args)

    class Doubled(nn.Linear, Twice):
        pass

    model, x = nn.Sequential(Doubled(64, 64)), torch.randn(2, 64)
    before = model(x)
    with pytest.raises(ConfigError, match="0: Doubled redefines __call__ of Linear"):
        tdcompress.compress(model, "tt", 4, (64,), keep=[])
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
def test_a_weight_of_another_type_is_named_wherever_it_is(dtype: torch.dtype):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = nn.Parameter(torch.zeros(8, 8).to(dtype), requires_grad=False)
    with pytest.raises(ConfigError, match=r"^layer 2: its weight is of "):
        tdcompress.compress(model, "tt", 2, (8,), keep=[])
    with pytest.raises(ConfigError, match=r"^its weight is of "):
        tdcompress.decompose(torch.zeros(8, 8).to(dtype), "tt", 2)


def test_a_weight_beyond_single_precision_is_refused():
    model = nn.Sequential(nn.Linear(16, 16)).double()
    nn.init.constant_(model[0].weight, 1e39)
    with pytest.raises(ConfigError, match=r"^layer 0: its weight holds 256 entries of 256 that are not finite"):
        tdcompress.compress(model, "tt", 2, (16,), keep=[], init="fit")
    assert tdcompress.decompose(torch.full((16, 16), 1e38), "tt", 2).error < 1e-6
    with pytest.raises(ConfigError, match="has no entries"):
        tdcompress.decompose(torch.zeros(0, 4), "tt", 2)


def test_a_layer_of_complex_numbers_can_be_kept():
    class Waves(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x).to(torch.complex64)).real

    model = Waves(nn.Linear(64, 64), nn.Linear(64, 64, dtype=torch.complex64))
    with pytest.raises(ConfigError, match="layer 1: its weight is of complex64"):
        tdcompress.compress(model, "tt", 2, (64,), keep=[])
    assert list(factorised(tdcompress.compress(model, "tt", 2, (64,), keep="1"))) == ["0"]
