"""Convolutions along one to three axes and transposed ones, in torch's settings, against torch; their MACs by hand."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from exhaustive import Symmetric, cheapest
from networks import Conv2dSame
from torch import nn

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.tensor.contraction.calls import Convolution
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.path import Geometry, Path, Term
from tdcompress.tensor.contraction.plan import compile_path
from tdcompress.tensor.contraction.search import macs, paths
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.graph import Core, Graph

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (5, 7, 6)
TRANSPOSED = {
    "plain": {},
    "stride": {"stride": (2, 3, 1), "padding": (1, 0, 1), "output_padding": (1, 2, 0)},
    "dilation": {"stride": 2, "dilation": (3, 2, 2), "output_padding": 1, "padding": 1},
    "groups": {"groups": 2, "stride": 2, "output_padding": 1},
    "no bias": {"bias": False, "stride": 2},
}
THREE = {
    "stride": {"stride": (2, 1, 3), "padding": (1, 0, 2), "dilation": (1, 2, 1)},
    "groups": {"groups": 4, "padding": 1},
    "same": {"padding": "same"},
    "circular": {"padding": (1, 0, 2), "padding_mode": "circular"},
    "replicate": {"padding": 1, "padding_mode": "replicate", "stride": 2},
}
CLASSES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def along(settings: dict[str, object], axes: int) -> dict[str, object]:
    return {key: value[-axes:] if isinstance(value, tuple) else value for key, value in settings.items()}


def held(twin: nn.Module, shape: tuple[int, ...], format: str = "tt", **settings: object) -> Factorised:
    settings = {"plan": "chain", "init": "variance", "allow_larger": True, **settings}
    layer = tdcompress.compress(copy.deepcopy(twin), format, 3, shape, keep=[], rates=Rates(), **settings)
    assert isinstance(layer, Factorised)
    return layer


def same(twin: nn.Module, layer: Factorised, x: torch.Tensor, *more: object) -> None:
    """Outputs and gradients of the input are those of the dense layer with the same weight."""
    parameters = {"weight": layer.to_dense(), "bias": layer.bias}
    wanted = torch.func.functional_call(twin, parameters, (x, *more))
    torch.testing.assert_close(layer(x, *more), wanted, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x, *more), wanted, rtol=1e-10, atol=1e-10)
    layer.train()


@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize("cls", CLASSES)
def test_transposed(cls: type[nn.Module], name: str):
    axes = CLASSES.index(cls) + 1
    twin = cls(8, 12, (3, 2, 4)[-axes:], **along(TRANSPOSED[name], axes)).double()
    shape = (8, *SIZE[-axes:])
    x = torch.randn(2, *shape, dtype=torch.float64)
    for kernel in ("merged", "separate"):
        layer = held(twin, shape, kernel=kernel)
        same(twin, layer, x)
        same(twin, layer, x[0])
        assert layer.reconstructs == (name == "groups")
        assert tuple(layer.plain()(x).shape) == tuple(layer(x).shape)
        assert layer.geometry(1, shape).space[-axes:] == tuple(
            zip("zyx"[-axes:], zip(shape[1:], layer(x).shape[2:], strict=True), strict=True)
        )


@pytest.mark.parametrize("groups", [1, 4])
def test_padding_that_follows_from_the_size(groups: int):
    twin = Conv2dSame(8, 12, (3, 4), stride=(2, 3), dilation=(1, 2), groups=groups).double()
    for format, kernel in (("tt", "merged"), ("cp", "separate")):
        layer = held(twin, (8, 7, 9), format=format, kernel=kernel)
        folded = tdcompress.fold(layer, (8, 7, 9), plan="chain", rates=Rates())
        assert type(folded) is Conv2dSame
        for size in itertools.product((6, 7, 8), (9, 10, 11)):
            x = torch.randn(2, 8, *size, dtype=torch.float64)
            same(twin, layer, x)
            torch.testing.assert_close(folded(x), layer(x), rtol=1e-10, atol=1e-10)
        assert tdcompress.count(layer, (8, 7, 9))["dense_macs"] == 4 * 3 * twin.weight.numel()


@pytest.mark.parametrize("cls", CLASSES)
def test_output_size(cls: type[nn.Module]):
    axes = CLASSES.index(cls) + 1
    twin = cls(8, 12, 3, stride=3, padding=1).double()
    shape = (8, *SIZE[-axes:])
    x, layer = torch.randn(2, *shape, dtype=torch.float64), held(twin, shape, format="cp", kernel="separate")
    for more in range(3):
        size = [3 * (length - 1) + 1 + more for length in SIZE[-axes:]]
        assert list(layer(x, output_size=size).shape[2:]) == size
        same(twin, layer, x, size)
        same(twin, layer, x[0], size)
    with pytest.raises(ValueError, match="requested an output size"):
        layer(x, output_size=[99] * axes)
    grouped = cls(8, 12, 3, stride=3, groups=2).double()
    same(grouped, held(grouped, shape), x, [3 * length + 2 for length in SIZE[-axes:]])


@pytest.mark.parametrize("name", THREE)
def test_three_axes(name: str):
    twin = nn.Conv3d(8, 12, (3, 2, 4), **THREE[name]).double()
    x = torch.randn(2, 8, *SIZE, dtype=torch.float64)
    for format, kernel in (("tt", "separate"), ("cp", "merged"), ("tucker", "open")):
        layer = held(twin, x.shape[1:], format=format, kernel=kernel)
        same(twin, layer, x)
        same(twin, layer, x[0])
        folded = tdcompress.fold(layer, x.shape[1:], plan="chain", rates=Rates())
        torch.testing.assert_close(folded(x), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("format", ["tt", "cp"])
def test_cores_are_kept_in_plain_layers(format: str):
    twin = nn.Sequential(nn.Conv3d(10, 13, 3, padding=1), nn.ConvTranspose3d(13, 10, (2, 3, 2), stride=2))
    settings = {"layout": "paired", "factors": 2, "in_modes": None, "allow_larger": True, "init": "variance"}
    model = tdcompress.compress(twin, format, 3, (10, *SIZE), keep=[], rates=Rates(), **settings).double().eval()
    x = torch.randn(2, 10, *SIZE, dtype=torch.float64)
    for plan in ("chain", "dense"):
        folded = tdcompress.fold(model, x.shape[1:], plan=plan, rates=Rates(), keep_cores=True)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-10, atol=1e-10)
    assert sum(p.numel() for p in folded.parameters()) == sum(p.numel() for p in model.parameters())


SIZES = {"i": 4, "o": 6, "kd": 3, "kh": 3, "kw": 3, "r1": 2, "r2": 3, "r3": 5, "r4": 2}
CHAIN = Graph(
    (
        Core("a", ("i", "r1")),
        Core("z", ("r1", "kd", "r2")),
        Core("y", ("r2", "kh", "r3")),
        Core("x", ("r3", "kw", "r4")),
        Core("b", ("r4", "o")),
    ),
    ("o", "i", "kd", "kh", "kw"),
    SIZES,
    ("i",),
    ("o",),
)
ONE_BY_ONE = Path(tuple(Term(k, (new,)) for k, new in enumerate(("r1", "r2", "r3", "r4", "o"))), 0.0)


def test_macs_of_a_convolution_along_one_axis_after_the_other():
    space = (("z", (8, 4)), ("y", (6, 3)), ("x", (4, 2)))
    before, z, zy, zyx = 8 * 6 * 4, 4 * 6 * 4, 4 * 3 * 4, 4 * 3 * 2
    taps = z * 3 * 2 * 3 + zy * 3 * 3 * 5 + zyx * 3 * 5 * 2  # every output pixel meets every tap
    assert macs(CHAIN, ONE_BY_ONE, Geometry(1, space)) == before * 4 * 2 + taps + zyx * 2 * 6


def test_macs_of_a_transposed_convolution_along_one_axis_after_the_other():
    space = (("z", (4, 8)), ("y", (3, 6)), ("x", (2, 4)))
    before, z, zy, zyx = 4 * 3 * 2, 8 * 3 * 2, 8 * 6 * 2, 8 * 6 * 4
    taps = before * 3 * 2 * 3 + z * 3 * 3 * 5 + zy * 3 * 5 * 2  # every input pixel meets every tap
    geometry = Geometry(1, space, transposed=True)
    assert macs(CHAIN, ONE_BY_ONE, geometry) == before * 4 * 2 + taps + zyx * 2 * 6
    cores = [torch.randn(CHAIN.shape(core)) for core in CHAIN.cores]
    plan = compile_path(CHAIN, ONE_BY_ONE, Convolution((2, 2, 2), (1, 1, 1), (1, 1, 1), (1, 1, 1), transposed=True))
    assert plan(torch.randn(1, 4, 4, 3, 2), cores).shape == (1, 6, 8, 6, 4)
    assert plan.text == "a:1x1x1 > z:3x1x1^T > y:1x3x1^T > x:1x1x3^T > b:1x1x1"


@pytest.mark.parametrize("transposed", [False, True])
def test_the_planner_finds_the_best_order_along_three_axes(transposed: bool):
    space = (
        (("z", (4, 8)), ("y", (3, 6)), ("x", (2, 4))) if transposed else (("z", (8, 4)), ("y", (6, 3)), ("x", (4, 2)))
    )
    cores = (Core("a", ("i", "kd", "r1")), Core("y", ("r1", "kh", "r2")), Core("b", ("r2", "kw", "o")))
    graph = Graph(cores, CHAIN.modes, {key: SIZES[key] for key in (*CHAIN.modes, "r1", "r2")}, ("i",), ("o",))
    for memory, call in itertools.product((1e7, 1e10), (0.0, 1e-5)):
        geometry, rates = Geometry(2, space, transposed=transposed), Symmetric(memory=memory, call=call)
        (best,) = paths(graph, geometry, rates)
        assert best.seconds == pytest.approx(cheapest(graph, geometry, rates), rel=1e-9)


def test_a_file_of_transposed_weights_is_read(tmp_path):
    network = nn.Sequential(nn.ConvTranspose2d(8, 12, 3, stride=2), nn.ConvTranspose2d(12, 12, 2, groups=2))
    model = tdcompress.compress(copy.deepcopy(network), "tt", 3, (8, 5, 4), keep=[], allow_larger=True).eval()
    tdcompress.save(model, tmp_path / "model.safetensors")
    found, x = tdcompress.load(tmp_path / "model.safetensors", network).eval(), torch.randn(2, 8, 5, 4)
    with torch.no_grad():
        assert torch.equal(found(x), model(x)) and found[0].weight.shape == (8, 12, 3, 3)


def test_a_weight_of_five_axes_is_decomposed():
    weight = torch.einsum("or,ir,dr,hr,wr->oidhw", *(torch.randn(size, 2) for size in (12, 8, 3, 2, 4)))
    for format, settings in (("cp", {}), ("tt", {"kernel": "separate"}), ("tucker", {"kernel": "separate"})):
        found = tdcompress.decompose(weight, format, rank=2, **settings)
        assert found.error < 1e-3 and found.to_dense().shape == weight.shape
    with pytest.raises(ConfigError, match=r"a weight is \(out, in\) or"):
        tdcompress.decompose(torch.zeros(2, 2, 2, 2, 2, 2))


def test_a_weight_that_a_transposed_convolution_shares_stays_with_both():
    down, up = nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 3)
    up.weight = down.weight
    model = nn.Sequential(down, up, nn.Conv2d(8, 12, 3))
    tdcompress.compress(model, "tt", 2, (8, 6, 6), keep=[])
    assert model[0] is down and model[1] is up and up.left_dense == "its weight is also that of 0"
    assert isinstance(model[2], Factorised)
