"""Weights that several modules share, and weights that are no numbers to factorise."""

from __future__ import annotations

import pytest
import torch
from cases import FACTORISED
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.fitting.initial import INITS

pytestmark = pytest.mark.usefixtures("one_thread")


def tied(by: str) -> nn.Sequential:
    sizes = [(16, 16), (16, 16), (16, 24), (24, 4)]
    model = nn.Sequential(*(nn.Linear(*size) for size in sizes))
    if by == "parameter":
        model[1].weight = model[0].weight
    else:
        model[1].weight.data = model[0].weight.data
    return model


def test_memory_of_two_parameters_is_counted_once_and_stays_shared():
    model, x = tied("memory"), torch.randn(3, 16)
    parameters = 16 * 16 + 2 * 16 + 16 * 24 + 24 + 24 * 4 + 4
    report = tdcompress.count(model, (16,))
    assert report["parameters"] == report["dense_parameters"] == parameters
    assert report["macs"] == 2 * 16 * 16 + 16 * 24 + 24 * 4  # it is applied twice
    before = model(x)
    tdcompress.compress(model, "tt", 2, (16,), layout="matrix")
    assert isinstance(model[2], Factorised)
    assert model[0].weight.data_ptr() == model[1].weight.data_ptr()
    rows = {row["name"]: row for row in tdcompress.count(model, (16,))["layers"]}
    assert [rows[name]["reason"] for name in "01"] == ["its weight is also that of 1", "its weight is also that of 0"]
    assert rows["0"]["parameters"] + rows["1"]["parameters"] == 16 * 16
    assert model(x).shape == before.shape
    after = tdcompress.count(model, (16,))
    assert after["parameters"] == parameters - 16 * 24 + 2 * (16 + 24)
    assert after["dense_parameters"] == parameters


def test_a_budget_counts_a_shared_weight_once():
    model = tied("parameter")
    tdcompress.compress(model, "tt", "params:572", (16,), layout="matrix")
    assert tdcompress.count(model, (16,))["parameters"] == pytest.approx(572, rel=0.02)


def bad(kind: str) -> Tensor:
    weight = torch.randn(12, 8)
    if kind in ("nan", "inf"):
        weight[3, 2] = float(kind)
        return weight
    return weight.to(getattr(torch, kind))


@pytest.mark.parametrize("kind", ["nan", "inf", "int8", "bool"])
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("format", FACTORISED)
def test_a_weight_of_no_use_is_refused_by_name(format: str, init: str, kind: str):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 12))
    model[1].weight = nn.Parameter(bad(kind), requires_grad=False)
    if kind in ("int8", "bool"):
        with pytest.raises(ConfigError, match=f"^layer 1: its weight is of {kind}"):
            tdcompress.compress(model, format, 2, (8,), keep=[], init=init)
    else:
        with pytest.raises(ConfigError, match=r"^layer 1: its weight holds 1 entries of 96 that are not finite$"):
            tdcompress.compress(model, format, 2, (8,), keep=[], init=init)
    assert isinstance(model[0], nn.Linear)  # nothing was swapped before
    with pytest.raises(ConfigError, match=r"^its weight (is of|holds) "):
        tdcompress.decompose(bad(kind), format, 2)
