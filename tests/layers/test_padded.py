"""Channels that their modes hold more than: what is padded is never read, and counts for nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import einsum_weight, having
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.fitting.initial import INITS, OF_TRAINED
from tdcompress.tensor.layout import arrange, balanced_factors, padded_factors
from tdcompress.tensor.norm import squared_norm

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = {"in_modes": [3, 4], "out_modes": [3, 5]}
IN, OUT, SIZE = 10, 13, (5, 6)
KINDS = (("linear", "split"), ("linear", "paired"), ("conv", "paired"))
CASES = [(kind, *way) for kind, layout in KINDS for way in having(layout)]


def dense(kind: str, bias: bool = True) -> nn.Module:
    return nn.Linear(IN, OUT, bias) if kind == "linear" else nn.Conv2d(IN, OUT, (3, 2), padding=1, bias=bias)


def example(kind: str) -> Tensor:
    shape = (4, IN) if kind == "linear" else (2, IN, *SIZE)
    return torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))


def applied(kind: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias) if kind == "linear" else F.conv2d(x, weight, bias, padding=1)


def held(layer: nn.Module, format: str, layout: str, rank: object = 3, **settings: object) -> Factorised:
    shape = (IN,) if isinstance(layer, nn.Linear) else (IN, *SIZE)
    settings = {"layout": layout, "allow_larger": True, "keep": [], "rates": Rates(), **MODES, **settings}
    return tdcompress.compress(layer, format, rank, shape, **settings)


@pytest.mark.parametrize(
    ("size", "count", "modes"),
    [
        (50_257, 3, (27, 38, 49)),  # 50,274, the next number whose largest factor is at most twice its smallest
        (50_257, 2, (206, 244)),
        (17, 3, (2, 3, 3)),
        (1000, 3, (10, 10, 10)),  # a number with good factors is not touched
        (26, 2, (2, 13)),  # nor one whose padded factors are not half as many
        (10, 3, (1, 2, 5)),
        (50_257, 1, (50_257,)),
        (1, 3, (1, 1, 1)),
    ],
)
def test_the_modes_of_a_size_that_does_not_split(size: int, count: int, modes: tuple[int, ...]):
    assert padded_factors(size, count) == modes


def test_padding_is_less_than_the_size_and_of_common_widths_there_is_none():
    for size in range(1, 300):
        for count in (1, 2, 3, 4):
            product = torch.tensor(padded_factors(size, count)).prod()
            assert size <= product < 2 * size
    for size in (
        3,
        6,
        10,
        16,
        20,
        50,
        84,
        120,
        400,
        500,
        800,
        1000,
        *range(8, 257, 8),
        512,
        768,
        1024,
        2048,
        3072,
        4096,
    ):
        if size not in (184, 232, 248, 152, 136):  # 8 times a prime
            assert padded_factors(size, 3) == balanced_factors(size, 3), size


@pytest.mark.parametrize("modes", [[3, 3], [4, 5], [2, 10], [0, 10], []])
def test_modes_too_few_or_twice_as_many_are_refused(modes: list[int]):
    with pytest.raises(ConfigError, match=r"in_modes=.*for example \[(2, 5|10)\]"):
        arrange((12, 10), "split", in_modes=modes)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_values_gradients_and_counts(case: tuple[str, str, str]):
    kind, format, layout = case
    for plan, bias in (("chain", False), ("chain", True), ("dense", True)):
        layer = held(dense(kind, bias), format, layout, plan=plan).double()
        weight = einsum_weight(layer)
        torch.testing.assert_close(layer.to_dense(), weight, rtol=1e-10, atol=1e-10)
        ours, theirs = (example(kind).requires_grad_() for _ in range(2))
        found, wanted = layer(ours), applied(kind, theirs, weight, layer.bias)
        assert found.is_contiguous() or found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        probe, parameters = torch.randn_like(wanted), list(layer.parameters())
        for a, b in zip(
            torch.autograd.grad((found * probe).sum(), [ours, *parameters]),
            torch.autograd.grad((wanted * probe).sum(), [theirs, *parameters]),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            torch.testing.assert_close(layer.eval()(ours), wanted, rtol=1e-10, atol=1e-10)
        report = tdcompress.count(layer, ours.shape[1:])
        entries = OUT * IN * (1 if kind == "linear" else 6)
        assert report["dense_parameters"] == entries + OUT * bias
        assert report["parameters"] == sum(core.numel() for core in layer.cores.values()) + OUT * bias
        assert report["dense_macs"] == entries * (1 if kind == "linear" else 5 * 7)
        if plan == "dense":
            assert report["macs"] == report["dense_macs"]  # what is put together loses its padding first


@pytest.mark.parametrize(("format", "layout"), [way for layout in ("split", "paired") for way in having(layout)])
def test_batches_of_every_size_in_eval_mode(format: str, layout: str):
    """Each has a plan of its own, some of which sum all inputs first and have several modes then."""
    for made, shape in ((lambda: nn.Conv2d(46, 53, 3, padding=1), (46, 4, 4)), (lambda: nn.Linear(19, 16), (19,))):
        settings = {"layout": layout, "keep": [], "allow_larger": True, "rates": Rates(), "factors": 3}
        for rank in (2, 8):
            layer = tdcompress.compress(made(), format, rank, shape, batch_size=1, **settings).double().eval()
            whole = tdcompress.fold(layer, shape)
            for batch in (1, 2, 16, 256):
                x = torch.randn(batch, *shape, dtype=torch.double)
                with torch.no_grad():
                    torch.testing.assert_close(layer(x), whole(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_norm_initial_values_and_fits_are_those_of_what_is_read(case: tuple[str, str, str]):
    kind, format, layout = case
    for init in sorted(set(INITS) - set(OF_TRAINED)):
        twin = dense(kind)
        layer = held(twin, format, layout, rank=2, init=init)
        wanted = twin.weight.detach().square().sum()
        torch.testing.assert_close(einsum_weight(layer).detach().square().sum(), wanted, rtol=1e-4, atol=0)
    twin = dense(kind)
    wanted = twin.weight.detach().clone()
    layer = held(twin, format, layout, rank=10**6, init="fit")
    assert (layer.to_dense() - wanted).norm() < 2e-4 * wanted.norm()
    for a, b in zip(
        torch.autograd.grad(squared_norm(layer.graph, layer.tensors()), layer.tensors()),
        torch.autograd.grad(einsum_weight(layer).square().sum(), layer.tensors()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_folded(case: tuple[str, str, str]):
    kind, format, layout = case
    layer, x = held(dense(kind), format, layout).double(), example(kind)
    for plan, keep_cores in (("chain", False), ("chain", True), ("dense", True)):
        folded = tdcompress.fold(layer, x.shape[1:], plan=plan, rates=Rates(), keep_cores=keep_cores)
        torch.testing.assert_close(folded(x), layer(x), rtol=1e-10, atol=1e-10)
    if (format, layout) == ("tr", "split"):
        program = torch.export.export(tdcompress.fold(layer, x.shape[1:], plan="chain", rates=Rates()), (x,))
        torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-10, atol=1e-10)


def test_a_budget_meets_the_true_sizes():
    model = nn.Sequential(nn.Linear(67, 134), nn.ReLU(), nn.Linear(134, 101))
    tdcompress.compress(model, "tt", "5x", (67,), keep=[])
    report = tdcompress.count(model, (67,))
    assert report["dense_parameters"] == 67 * 134 + 134 + 134 * 101 + 101
    assert report["compression_ratio"] == pytest.approx(5, rel=0.02)
    assert model(torch.zeros(2, 67)).shape == (2, 101)
