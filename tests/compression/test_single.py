"""What a user imports: the examples in the docstrings, single layers, single weights, counts."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, FACTORISED, Case, einsum_dense, random_cores
from torch import nn

import tdcompress
from tdcompress.compression import single as api
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.norm import squared_norm

pytestmark = pytest.mark.usefixtures("one_thread")


def test_docstrings():
    found = doctest.testmod(api)
    assert found.attempted > 8 and found.failed == 0


def test_every_name_is_there_and_none_imports_torch_before_it_is_used():
    assert all(getattr(tdcompress, name) is not None for name in tdcompress.__all__)
    code = "import sys, tdcompress; assert 'torch' not in sys.modules; tdcompress.linear; assert 'torch' in sys.modules"
    code += "; assert 'tensorly' not in sys.modules; tdcompress.to_tensorly; assert 'tensorly' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("format", FACTORISED)
def test_a_single_convolution(format: str):
    torch.manual_seed(0)
    layer = tdcompress.conv2d(format, 8, 12, (3, 2), 2, (1, 0), rank=3, image_size=(9, 7), padding_mode="circular")
    x = torch.randn(2, 8, 9, 7)
    padded = F.pad(x, (0, 0, 1, 1), mode="circular")
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.to_dense(), layer.bias, 2), rtol=1e-4, atol=1e-5)
    assert layer.bias.shape == (12,)
    assert tdcompress.conv2d(format, 8, 12, 3, bias=False, rank=3).bias is None


@pytest.mark.parametrize("format", FACTORISED)
def test_a_single_linear_layer(format: str):
    layer, x = tdcompress.linear(format, 24, 16, rank=3), torch.randn(2, 3, 24)
    torch.testing.assert_close(layer(x), F.linear(x, layer.to_dense(), layer.bias), rtol=1e-4, atol=1e-5)


def test_a_budget_is_of_the_layer():
    layer = tdcompress.linear("tt", 256, 256, bias=False, rank="8x", layout="matrix")
    assert layer.graph.ranks == {"r1": 16}  # 16 * (256 + 256) = 256 * 256 / 8


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_weight_of_the_format_is_found_again(case: Case):
    torch.manual_seed(0)
    graph = case.graph(2)
    weight = einsum_dense(graph, random_cores(graph)).detach().reshape(case.twin().weight.shape)
    settings = {"layout": case.layout, "kernel": case.kernel, "factors": 2}
    found = tdcompress.decompose(weight, case.format, 2, **settings)
    assert found.ranks == graph.ranks and found.parameters == graph.parameters
    assert list(found.cores) == [core.name for core in graph.cores]
    assert found.to_dense().shape == weight.shape and found.to_dense().dtype == weight.dtype
    error = float((found.to_dense() - weight).norm() / weight.norm())
    assert found.error == pytest.approx(error, abs=1e-6)
    assert not graph.is_tree or error < 1e-5


def test_a_share_of_the_macs_is_one_at_any_size():
    found = tdcompress.decompose(torch.randn(128, 128, 3, 3), "tucker", "macs:0.2")
    r, s = found.ranks.values()
    assert (128 * r + 9 * r * s + 128 * s) / (128 * 128 * 9) == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("method", ["cp", "tr", "tt"])
def test_autocast_is_not_for_fits(method: str):
    weight = torch.randn(24, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    plain = tdcompress.decompose(weight, method, rank=4)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = tdcompress.decompose(weight, method, rank=4)
        norm = squared_norm(cast.graph, list(cast.cores.values()))
    assert cast.error == plain.error and norm.dtype == torch.float32
    assert all(torch.equal(core, plain.cores[name]) for name, core in cast.cores.items())


def test_the_format_is_the_one_that_was_asked_for_convolutions():
    found = tdcompress.decompose(torch.randn(32, 16, 3, 3), "tt", rank=4, conv="cp")
    assert found.format == "cp" and type(tdcompress.to_tensorly(found)).__name__ == "CPTensor"


def test_a_matrix_loses_what_its_singular_values_say():
    weight = torch.randn(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(weight)
    found = tdcompress.decompose(weight, "tt", 7, layout="matrix")
    assert found.error == pytest.approx(float(values[7:].norm() / values.norm()), rel=1e-5)


@pytest.mark.parametrize(
    "weight", [torch.zeros(3), torch.zeros(2, 3, 4, 5, 6, 7)], ids=lambda weight: str(weight.shape)
)
def test_what_is_no_weight(weight: torch.Tensor):
    with pytest.raises(ConfigError, match="a weight is"):
        tdcompress.decompose(weight)


def test_an_array_is_to_be_made_a_tensor_first():
    with pytest.raises(ConfigError, match=r"got a ndarray: torch\.as_tensor makes one"):
        tdcompress.decompose(torch.zeros(4, 4).numpy())


def test_settings_of_a_layer_are_those_of_compress():
    layer = tdcompress.linear("tt", 64, 64, rank=4, rates=Rates(memory=1e3), keep=[])
    assert layer.planner.rates == Rates(memory=1e3)


def test_the_dense_format_is_no_decomposition():
    assert isinstance(tdcompress.linear("dense", 4, 4), nn.Linear)
    with pytest.raises(ConfigError, match="leaves a weight as it is"):
        tdcompress.decompose(torch.zeros(4, 4), "dense")


def test_counts():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), tdcompress.conv2d("tt", 8, 8, 3, rank=2), nn.Flatten(), nn.Linear(32, 5))
    report = tdcompress.count(model, (3, 6, 6))
    assert report["parameters"] == (27 * 8 + 8) + (8 * 2 + 2 * 9 * 2 + 2 * 8 + 8) + (32 * 5 + 5)
    assert report["dense_parameters"] == report["parameters"] + 576 - 68
    assert [layer["dense_macs"] for layer in report["layers"]] == [16 * 216, 4 * 576, 160]
