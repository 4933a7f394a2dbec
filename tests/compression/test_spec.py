"""Formats, ranks and settings: of a kind of layer, of single layers, of the whole network."""

from __future__ import annotations

import numpy
import pytest
import torch
from cases import having
from networks import SHAPE, Net, swapped
from torch import nn

from tdcompress.compression.survey.report import report
from tdcompress.compression.swap import compress
from tdcompress.config.schema import MethodConfig
from tdcompress.layers.conv import FactorisedConv
from tdcompress.layers.linear import FactorisedLinear
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.rank import Size

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_format_for_each_kind_of_layer():
    model = compress(Net(), MethodConfig(format="tt", conv="tucker"), 4, SHAPE)
    assert swapped(model) == {"body.0.conv": "tucker", "body.1.0": "tucker", "hidden": "tt"}
    assert isinstance(model.hidden, FactorisedLinear)
    assert isinstance(model.body[1][0], FactorisedConv)
    assert swapped(compress(Net(), "cp", 4, SHAPE, linear="dense")) == {"body.0.conv": "cp", "body.1.0": "cp"}


def test_overrides_for_single_layers():
    hidden = {"layout": "split", "in_modes": [16, 18], "out_modes": [8, 8]}
    layers = {"body.*": {"rank": 2, "format": "cp"}, "hidden": hidden}
    model = compress(Net(), "tt", 5, SHAPE, layers=layers)
    assert swapped(model) == {"body.0.conv": "cp", "body.1.0": "cp", "hidden": "tt"}
    assert model.body[0].conv.graph.ranks == {"r": 2}
    assert model.hidden.graph.ranks == {"r1": 5, "r2": 5, "r3": 5}
    assert [tuple(core.shape) for core in model.hidden.tensors()] == [(16, 5), (5, 18, 5), (5, 8, 5), (5, 8)]


def test_reference_ranks():
    # Convolutions: a third of the wider side, 32 // 3 (Tucker: a third of each side, rounded up); linear: 64 // 2.
    model = compress(Net(), "tt", "reference", SHAPE, layout="matrix")
    assert model.body[1][0].graph.ranks == {"r1": 10}
    assert model.hidden.graph.ranks == {"r1": 32}
    model = compress(Net(), "tucker", "reference", SHAPE)
    assert model.body[1][0].graph.ranks == {"r_i": 6, "r_o": 11}


def test_a_layers_own_format_goes_before_its_kinds():
    model = compress(Net(), "tt", 4, SHAPE, linear="ht", conv="cp", layers={"hidden": {"format": "tucker"}})
    assert swapped(model) == {"body.0.conv": "cp", "body.1.0": "cp", "hidden": "tucker"}


def test_settings_go_on_top_of_a_whole_configuration():
    model = compress(Net(), MethodConfig("tt", layout="matrix"), 4, SHAPE, layout="split")
    assert len(model.hidden.graph.cores) == 6
    with pytest.raises(ConfigError, match="colour"):
        compress(Net(), MethodConfig("tt"), 4, SHAPE, colour="red")


@pytest.mark.parametrize("format", [format for format, _ in having("channels")])
def test_a_trained_matrix_that_would_pass_next_to_nothing_is_split(format: str):
    """Ranks of 8 have 4,096 entries or more in a 256 x 256 matrix: they fit into 5,120 (12.8x), not 2,560 (25.6x).

    A ring of two cores, whose rank is a product of two, is always split.
    """
    ring = format == "tr"

    def sites(rank: str, **settings: object) -> int:
        model = compress(nn.Sequential(nn.Linear(256, 256, bias=False)), format, rank, (256,), keep=[], **settings)
        return len(model[0].graph.inputs)

    assert (sites("12.8x", init="fit") > 1, sites("25.6x", init="fit") > 1) == (ring, True)
    assert (sites("macs:0.0391", init="fit") > 1) == ring
    assert sites("25.6x", init="fit", layout="matrix") == 1  # what was asked for is kept to
    model = compress(nn.Sequential(nn.Linear(256, 256)), format, "25.6x", (256,), keep=[], init="fit")
    again = compress(nn.Sequential(nn.Linear(256, 256)), format, 1, (256,), keep=[], cores={"0": dict(model[0].cores)})
    torch.testing.assert_close(again[0].to_dense(), model[0].to_dense())


@pytest.mark.parametrize("format", [format for format, _ in having("channels")])
def test_factors_that_are_given_split_a_trained_weight(format: str):
    def sites(**settings: object) -> int:
        net = nn.Sequential(nn.Conv2d(16, 64, 3, padding=1))
        model = compress(net, format, "5x", (16, 6, 6), init="fit", keep=[], **settings)
        return len(model[0].graph.inputs)

    assert (sites(), sites(factors=2), sites(factors=3), sites(factors=2, layout="channels")) == (1, 2, 3, 1)


@pytest.mark.parametrize(("format", "factors"), [("btt", 3), ("tt", 1)])
def test_factors_that_split_nothing_are_not_said_to(format: str, factors: int):
    model = compress(
        nn.Sequential(nn.Conv2d(16, 64, 3)), format, "5x", (16, 6, 6), init="fit", keep=[], factors=factors
    )
    assert "factors are given" not in str(report(model))


def test_integers_of_numpy_and_shapes_are_ranks():
    def sizes(rank: object, **own: object) -> list[dict[str, int]]:
        settings = {"layout": "matrix", "allow_larger": True, **own}
        model = compress(nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30)), "tt", rank, (30,), keep=[], **settings)
        return [layer.graph.ranks for layer in model]

    assert sizes(numpy.int64(4)) == sizes(Size(4)) == [{"r1": 4}] * 2
    for own in (numpy.int16(3), Size(3), "3"):
        assert sizes(4, layers={"1": {"rank": own, "init": "variance"}}) == [{"r1": 4}, {"r1": 3}]
    split = {"layout": "split", "in_modes": [5, 6], "out_modes": [30]}
    assert sizes(torch.Size([2, 7]), **split) == [{"r1": 2, "r2": 7}] * 2


@pytest.mark.parametrize("rank", ["vbmf", "energy:0.8"])
@pytest.mark.parametrize("own", [False, True], ids=["of the network", "of the layer"])
def test_ranks_that_follow_from_weights_come_with_their_fit(rank, own):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30))
    weight = model[0].weight.data = torch.randn(30, 3) @ torch.randn(3, 40) + torch.randn(30, 40) / 2
    compress(model, "tucker", 8 if own else rank, (40,), keep=(), layers={"0": {"rank": rank}} if own else {})
    (found,) = set(model[0].graph.ranks.values())
    u, s, v = torch.linalg.svd(weight)
    torch.testing.assert_close(model[0].weight, u[:, :found] * s[:found] @ v[:found], rtol=1e-4, atol=1e-4)
