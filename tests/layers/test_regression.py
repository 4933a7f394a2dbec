"""arch.head=trl: the classifier as a tensor regression over the feature map, against contractions written by hand."""

from __future__ import annotations

import pytest
import tensorly
import torch
from cases import FACTORISED, layout_of
from tensorly.tucker_tensor import tucker_to_tensor
from torch import nn

from tdcompress.compression.survey.counts import count
from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.layers.linear import FactorisedLinear, FeatureMapLinear
from tdcompress.models.build import ARCHS, build
from tdcompress.models.recurrent import RECURRENT
from tdcompress.models.resnet import RESNET
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

MAPS = {
    "lenet": (64, 30, 30),
    "lenet5": (50, 14, 14),
    **dict.fromkeys(["vgg11", "vgg13", "vgg16", "vgg19"], (512, 2, 2)),
}


def regression(format: str, rank: int = 3) -> FactorisedLinear:
    """A layer over 6 channels of 4 x 5 pixels with 7 outputs, in double precision."""
    model = nn.Sequential(FeatureMapLinear((6, 4, 5), 7))
    return compress(model, format, rank, (120,), plan="chain", allow_larger=True)[0].double()


def test_every_arch_ends_in_one_layer_from_the_feature_map():
    assert set(ARCHS) == {*MAPS, *RECURRENT, *RESNET, "vit_small", "torchvision"}  # the others end in a vector
    for name, feature_map in MAPS.items():
        model = build(ArchConfig(name, head="trl"), 1, 10, 64)
        *_, last = model.modules()
        assert isinstance(last, FeatureMapLinear) and last.feature_map == feature_map
        assert [layer for layer in model.modules() if isinstance(layer, nn.Linear)] == [last]


@pytest.mark.parametrize("name", RECURRENT)
def test_there_is_no_map_behind_a_recurrent_layer(name: str):
    with pytest.raises(ConfigError, match=f"arch={name} has no head to choose: leave arch.head=trl out"):
        build(ArchConfig(name, head="trl"), 1, 10, 28)


@pytest.mark.parametrize("format", FACTORISED)
def test_the_head_is_factorised_over_the_map_and_the_classes(format: str):
    model = build(ArchConfig("lenet", width=0.25, head="trl"), 1, 10, 16)  # the map: 16 x 6 x 6
    modes = {"layout": layout_of(format, "split"), "in_modes": [2, 4], "out_modes": [4, 4]}
    compress(model, format, 3, (1, 16, 16), linear=format, **modes)
    assert isinstance(model.trl, FactorisedLinear)
    assert [model.trl.graph.sizes[mode] for mode in model.trl.graph.modes] == [10, 16, 6, 6]
    assert isinstance(model.conv1, nn.Conv2d)
    x = torch.rand(3, 1, 16, 16)
    features = model.eval()[: list(dict(model.named_children())).index("flatten")](x)  # (b, c, y, x)
    assert features.shape == (3, 16, 6, 6)
    weight = model.trl.to_dense().reshape(10, 16, 6, 6)
    torch.testing.assert_close(model(x), torch.einsum("bcyx,ocyx->bo", features, weight) + model.trl.bias)


def test_cp_by_hand():
    layer, maps = regression("cp"), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    channels, rows, columns, outputs = layer.tensors()
    expected = torch.einsum("bcyx,cr,yr,xr,or->bo", maps, channels, rows, columns, outputs) + layer.bias
    torch.testing.assert_close(layer(maps.flatten(1)), expected, rtol=1e-10, atol=1e-10)
    assert sum(core.numel() for core in layer.cores.values()) == 3 * (6 + 4 + 5 + 7)


def test_tucker_against_tensorly():
    layer, maps = regression("tucker", 4), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    *factors, core = (value.detach() for value in layer.tensors())
    tensorly.set_backend("pytorch")
    try:
        weight = tucker_to_tensor((core, factors))
    finally:
        tensorly.set_backend("numpy")
    expected = torch.tensordot(maps, weight, dims=3) + layer.bias
    torch.testing.assert_close(layer(maps.flatten(1)), expected, rtol=1e-10, atol=1e-10)
    assert sum(core.numel() for core in layer.cores.values()) == 4 * (6 + 4 + 5 + 7) + 4**4


def test_lenets_head_counted_by_hand():
    model = compress(build(ArchConfig("lenet", head="trl"), 1, 10, 28), "tt", 8, (1, 28, 28), keep=["conv*"])
    report = count(model, (1, 28, 28))
    assert report["layers"][-1]["cores"] == {
        "core1": [64, 8],
        "core2": [8, 12, 8],
        "core3": [8, 12, 8],
        "core4": [8, 10],
    }
    convolutions = (9 + 1) * 32 + (32 * 9 + 1) * 64
    assert report["parameters"] == convolutions + 64 * 8 + 2 * 8 * 12 * 8 + 80 + 10
    assert report["dense_parameters"] == convolutions + 64 * 12 * 12 * 10 + 10


def test_a_map_of_one_pixel_has_channels_only():
    model = compress(
        build(ArchConfig("vgg11", width=0.25, head="trl"), 3, 10, 32), "cp", 4, (3, 32, 32), keep=["feat*"]
    )
    assert [tuple(core.shape) for core in model.classifier.trl.tensors()] == [(128, 4), (10, 4)]


def test_it_stays_dense_where_that_is_asked():
    model = compress(build(ArchConfig("lenet5", head="trl"), 1, 10, 28), "cp", 4, (1, 28, 28), keep=["trl"])
    assert isinstance(model.trl, FeatureMapLinear) and not isinstance(model.conv1, nn.Conv2d)


def test_a_layers_own_settings_go_before_the_map():
    layers = {"0": {"in_modes": [24, 5], "out_modes": [7]}}
    model = compress(nn.Sequential(FeatureMapLinear((6, 4, 5), 7)), "cp", 2, (120,), layers=layers)
    assert [tuple(core.shape) for core in model[0].tensors()] == [(24, 2), (5, 2), (7, 2)]
