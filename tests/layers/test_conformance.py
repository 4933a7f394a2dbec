"""Every kind of layer in every format and layout, against the dense layer: a new kind or format is picked up here."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tdcompress
from tdcompress.compression.survey.plans import plans, use_plans
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import ELSEWHERE
from tdcompress.layers.kinds import KINDS as HERE
from tdcompress.layers.linear import FeatureMapLinear
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.layout import LAYOUTS

pytestmark = pytest.mark.usefixtures("one_thread")

KERNEL, SIZE = (3, 2, 4), (7, 6, 5)  # no two sizes alike, so that a swap of axes shows


class Conv1D(nn.Module):
    """As in transformers (``pytorch_utils``), which need not be installed."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        size_out = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size_out)


KINDS = HERE | {Conv1D: ELSEWHERE["transformers.pytorch_utils.Conv1D"]}
OWN = {FeatureMapLinear: ((2, 2, 2), 12), Conv1D: (12, 8)}
"""What the constructors take that do not take (inputs, outputs[, kernel])."""


def skipped(cls: type[nn.Module], format: str, layout: str) -> str | None:
    if not FORMATS[format].factorised:
        return "the baseline's layers are left as they are"
    if layout not in FORMATS[format].layouts:
        return "the format has no such layout"
    if KINDS[cls].factorised.lookup:
        return "its inputs are indices: see test_embedding"
    if KINDS[cls].weights[0].sites is not None and layout != "split":
        return "its layout follows from its feature map"
    return None


EVERY = [(cls, format, layout) for cls in KINDS for format in sorted(FORMATS) for layout in LAYOUTS]
CASES = [case for case in EVERY if skipped(*case) is None]


def make(cls: type[nn.Module]) -> nn.Module:
    """A dense layer of this class, in double precision."""
    axes = KINDS[cls].weights[0].axes
    arguments = OWN.get(cls, (8, 12, KERNEL[:axes]) if axes else (8, 12))
    takes = inspect.signature(cls).parameters
    return cls(*arguments, **({"padding": 1} if "padding" in takes else {})).double()


def example(cls: type[nn.Module], batch: int = 2) -> Tensor:
    shape = (batch, 8, *SIZE[: KINDS[cls].weights[0].axes])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def held(twin: nn.Module, format: str, layout: str, rank: object = 3, **settings: object) -> Factorised:
    x = example(type(twin))
    settings = {"layout": layout, "factors": 2, "allow_larger": True, "init": "variance", **settings}
    layer = tdcompress.compress(
        copy.deepcopy(twin), format, rank, tuple(x.shape[1:]), keep=[], rates=Rates(), **settings
    )
    assert isinstance(layer, Factorised)
    return layer


def named(case: tuple[type[nn.Module], str, str]) -> str:
    return "-".join((case[0].__name__, *case[1:]))


def test_what_is_skipped():
    reasons = [(cls.__name__, format, layout) for cls, format, layout in EVERY if skipped(cls, format, layout)]
    baseline = [(cls.__name__, "dense", layout) for cls in KINDS for layout in LAYOUTS]
    mapped = [
        ("FeatureMapLinear", format, layout)
        for format in FORMATS
        for layout in LAYOUTS
        if layout != "split" and format != "dense"
    ]
    lookups = [("Embedding", format, layout) for format in FORMATS for layout in LAYOUTS if format != "dense"]
    split = {(cls.__name__, "btt", layout) for cls in KINDS for layout in LAYOUTS if layout != "split"}
    assert sorted(reasons) == sorted({*baseline, *mapped, *lookups, *split})


@pytest.mark.parametrize("case", CASES, ids=named)
def test_values_and_gradients(case: tuple[type[nn.Module], str, str]):
    cls, format, layout = case
    twin = make(cls)
    for plan in ("model", "chain", "dense"):
        layer = held(twin, format, layout, plan=plan)
        ours, theirs = (example(cls).requires_grad_() for _ in range(2))
        wanted = torch.func.functional_call(twin, {"weight": layer.to_dense(), "bias": layer.bias}, (theirs,))
        found = layer(ours)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-9)
        probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        parameters = list(layer.parameters())
        for a, b in zip(
            torch.autograd.grad((found * probe).sum(), [ours, *parameters]),
            torch.autograd.grad((wanted * probe).sum(), [theirs, *parameters]),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_trained_weight_is_kept_at_full_rank(case: tuple[type[nn.Module], str, str]):
    cls, format, layout = case
    twin, x = make(cls), example(cls)
    layer = held(twin, format, layout, rank=10**6, init="fit")
    with torch.no_grad():
        wanted, found = twin(x), layer(x)
    assert (found - wanted).norm() < 2e-4 * wanted.norm()


@pytest.mark.parametrize("case", CASES, ids=named)
def test_counts(case: tuple[type[nn.Module], str, str]):
    cls, format, layout = case
    twin, x = make(cls), example(cls, batch=1)
    layer = held(twin, format, layout)
    with FlopCounterMode(display=False) as counter:
        twin(x)
    report = tdcompress.count(layer, x.shape[1:])
    assert report["parameters"] == sum(core.numel() for core in layer.cores.values()) + 12
    assert report["dense_parameters"] == sum(p.numel() for p in twin.parameters())
    assert report["dense_macs"] == counter.get_total_flops() / 2
    assert report["macs"] > 0 and report["activation_macs"] == 0
    layer.use(held(twin, format, layout, plan="dense").plan.path)
    assert tdcompress.count(layer, x.shape[1:])["macs"] == report["dense_macs"]


@pytest.mark.parametrize("case", CASES, ids=named)
def test_folded(case: tuple[type[nn.Module], str, str]):
    cls, format, layout = case
    twin, x = make(cls), example(cls)
    layer = held(twin, format, layout)
    for plan in ("model", "chain", "dense"):
        folded = tdcompress.fold(layer, x.shape[1:], plan=plan, rates=Rates())
        assert all(type(module).__module__.startswith(("torch.nn.", cls.__module__)) for module in folded.modules())
        torch.testing.assert_close(folded(x), layer(x), rtol=1e-10, atol=1e-9)
    of_cores = tdcompress.fold(layer, x.shape[1:], plan="dense", rates=Rates(), keep_cores=True)
    torch.testing.assert_close(of_cores(x), layer(x), rtol=1e-10, atol=1e-9)
    twin.load_state_dict(folded.state_dict())
    torch.testing.assert_close(twin(x), layer(x), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_state_dict_round_trip(case: tuple[type[nn.Module], str, str]):
    cls, format, layout = case
    twin, x = make(cls), example(cls)
    layer, other = (held(twin, format, layout, init="variance") for _ in range(2))
    assert not torch.equal(layer(x), other(x))
    other.load_state_dict(layer.state_dict())
    use_plans(nn.Sequential(other), plans(nn.Sequential(layer)))
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("case", CASES, ids=named)
def test_bfloat16(case: tuple[type[nn.Module], str, str]):
    cls, format, layout = case
    layer, x = held(make(cls), format, layout), example(cls)
    with torch.no_grad():
        wanted = layer(x)
        low = layer.bfloat16()(x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            cast = layer.float()(x.float())
    assert low.dtype == cast.dtype == torch.bfloat16
    for found in (low, cast):
        assert (found.double() - wanted).norm() < 20 * 2**-8 * wanted.norm()
