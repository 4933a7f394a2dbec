"""Parameters and MACs, against numbers counted by hand and torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, IMAGE, IN, Case
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tdcompress.compression.survey.counts import count
from tdcompress.compression.survey.report import Report
from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.models import build as archs

pytestmark = pytest.mark.usefixtures("one_thread")


def entry(twin: nn.Module, shape: tuple[int, ...], format: str, rank: int | str, **settings: Any) -> dict[str, Any]:
    """The report of a single compressed layer, contracted core by core."""
    model = compress(nn.Sequential(twin), format, rank, shape, keep=[], plan="chain", **settings)
    (layer,) = count(model, shape)["layers"]
    return layer


def test_tucker2_at_the_reference_ranks():
    layer = entry(nn.Conv2d(512, 512, 3, padding=1), (512, 4, 4), "tucker", "reference", kernel="open")
    assert layer["ranks"] == {"r_i": 171, "r_o": 171}  # ceil(512 / 3)
    # 512*171 = 87,552 for each factor, 171*171*9 = 263,169 for the core
    assert layer["parameters"] == 2 * 87_552 + 263_169
    assert layer["dense_parameters"] == 2_359_296  # 512*512*9
    assert layer["macs"] == 16 * (2 * 87_552 + 263_169)  # all three at every one of 4*4 positions
    assert layer["dense_macs"] == 16 * 2_359_296
    assert layer["cores"] == {"factor_i": [512, 171], "factor_o": [512, 171], "core": [171, 171, 3, 3]}


def test_cp_with_separate_kernel_factors_and_a_stride():
    layer = entry(nn.Conv2d(64, 128, 3, 2, 1), (64, 8, 8), "cp", 20, kernel="separate")
    assert layer["parameters"] == 20 * (64 + 3 + 3 + 128)
    # 1x1 at 8*8 positions: 64*64*20; 3x1 leaves 4*8: 32*20*3; 1x3 leaves 4*4: 16*20*3; 1x1: 16*20*128
    assert layer["macs"] == 81_920 + 1_920 + 960 + 40_960
    assert layer["dense_macs"] == 16 * 64 * 128 * 9


def test_tt_matrix():
    layer = entry(nn.Conv2d(32, 64, 3), (32, 5, 5), "tt", 16, layout="matrix")
    assert layer["parameters"] == 32 * 9 * 16 + 16 * 64
    assert layer["macs"] == 9 * (32 * 9 * 16 + 16 * 64)  # 3*3 positions are left
    assert layer["cores"] == {"core1": [32, 3, 3, 16], "core2": [16, 64]}


def test_the_tt_matrix_of_novikov():
    modes = [4, 8, 8, 4]
    layer = entry(nn.Linear(1024, 1024), (1024,), "tt", 4, layout="paired", in_modes=modes, out_modes=modes)
    assert layer["parameters"] == 4 * 4 * 4 + 4 * 8 * 8 * 4 + 4 * 8 * 8 * 4 + 4 * 4 * 4
    # Per call: what stays * summed * new. (8*8*4) * 4 * (4*4) = 16,384; (8*4 * 4) * (8*4) * (8*4) = 131,072; the
    # other half is its mirror image.
    assert layer["macs"] == 2 * (16_384 + 131_072)
    assert layer["dense_macs"] == 1024 * 1024


def test_ht_split():
    layer = entry(nn.Linear(64, 64), (64,), "ht", 4, layout="split", factors=2)
    assert layer["parameters"] == 4 * (8 * 4) + 2 * (4 * 4 * 4) + 4 * 4  # leaves, transfer cores, root
    # leaf i1: 8 * (8*4); leaf i2: 4 * (8*4); transfer: 16*4; root: 4*4; and the mirror image of the first three
    assert layer["macs"] == 2 * (256 + 128 + 64) + 16
    layer = entry(nn.Conv2d(64, 64, 3), (64, 5, 5), "ht", 4, layout="split", kernel="merged", factors=2)
    assert layer["parameters"] == 4 * (8 * 4) + 9 * 4 + 3 * (4 * 4 * 4) + 4 * 4
    assert set(layer["ranks"].values()) == {4}
    assert len(layer["ranks"]) == 8


def test_tensor_ring():
    layer = entry(nn.Conv2d(16, 16, 3), (16, 5, 5), "tr", 3, layout="channels")
    assert layer["parameters"] == 3 * 16 * 3 + 3 * 9 * 3 + 3 * 16 * 3
    assert layer["ranks"] == {"r0": 3, "r1": 3, "r2": 3}


def test_ranks_above_the_cap_are_reported_as_they_are():
    layer = entry(nn.Linear(64, 10), (64,), "tt", 400, layout="matrix", allow_larger=True)
    assert layer["ranks"] == {"r1": 10}
    assert layer["parameters"] == 64 * 10 + 10 * 10


def test_groups_are_reconstructed():
    layer = entry(nn.Conv2d(16, 8, 3, groups=4), (16, 5, 5), "tt", 2, layout="matrix")
    assert layer["shape"] == [8, 4, 3, 3]
    assert layer["macs"] == layer["dense_macs"] == 9 * 8 * 4 * 9
    assert layer["plan"] == "reconstruct"


def test_a_linear_layer_over_a_sequence():
    layer = entry(nn.Linear(32, 16), (7, 5, 32), "tt", 3, layout="matrix")
    assert layer["macs"] == 7 * 5 * 3 * (32 + 16)
    assert layer["dense_macs"] == 7 * 5 * 32 * 16


def test_the_whole_lenet():
    dense = archs.build(ArchConfig(name="lenet"), 1, 10, 28)
    report = count(dense, (1, 28, 28))
    # conv1 1*32*9 + 32, conv2 32*64*9 + 64, fc1 9216*128 + 128, fc2 128*10 + 10
    counted = 320 + 18_496 + 1_179_776 + 1_290
    macs = 26 * 26 * 288 + 24 * 24 * 18_432 + 1_179_648 + 1_280
    assert report["parameters"] == report["dense_parameters"] == counted
    assert report["macs"] == report["dense_macs"] == macs
    assert report["compression_ratio"] == 1

    model = compress(dense, "tt", "reference", (1, 28, 28), layout="matrix", plan="chain")
    report = count(model, (1, 28, 28))
    # conv2 at rank 64 // 3 = 21: 288*21 + 21*64; fc1 at rank 128 // 2 = 64: 9216*64 + 64*128
    conv2, fc1 = 7_392, 598_016
    assert report["parameters"] == 320 + conv2 + 64 + fc1 + 128 + 1_290
    assert report["parameters"] == sum(p.numel() for p in model.parameters())
    assert report["dense_parameters"] == counted
    assert report["dense_macs"] == macs
    assert report["macs"] == 26 * 26 * 288 + 24 * 24 * conv2 + fc1 + 1_280
    assert report["compression_ratio"] == pytest.approx(counted / report["parameters"])
    rows = [(layer["name"], layer["kind"], layer["format"]) for layer in report["layers"]]
    assert rows == [
        ("conv1", "convolution", "dense"),
        ("conv2", "convolution", "tt"),
        ("fc1", "linear", "tt"),
        ("fc2", "linear", "dense"),
    ]


class Partly(nn.Sequential):
    """A network of which the last layer is never called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in list(self)[:-1]:
            x = layer(x)
        return x


def test_what_is_not_swapped_counts_the_same_on_both_sides():
    model = Partly(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 4), nn.Linear(3, 3))
    report = count(compress(model, "tt", 2, (16,), layout="matrix"), (16,))
    # 2*(16 + 16) + 16, batch norm 32, 16*4 + 4, and 12 of the layer that no input reaches
    assert report["parameters"] == 64 + 16 + 32 + 68 + 12
    assert report["dense_parameters"] == 256 + 16 + 32 + 68 + 12
    assert [layer["name"] for layer in report["layers"]] == ["0", "2", "3"]
    assert report["layers"][2]["reason"] == "the inputs do not reach it" and report["layers"][2]["macs"] == 0


def counted_macs(layer: nn.Module, shape: tuple[int, ...]) -> int:
    """Half the FLOPs that torch counts in one image's forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.zeros(1, *shape, dtype=torch.float64))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_macs_are_what_torch_counts(case: Case):
    settings = {"padding": (2, 1), "stride": (2, 1)} if case.kind == "conv" else {}
    layer = case.layer(twin=case.twin(**settings))
    if "*" in layer.plan.text:
        pytest.skip("torch does not count elementwise products")
    shape = (IN, *IMAGE) if case.kind == "conv" else (IN,)
    (row,) = count(nn.Sequential(layer), shape)["layers"]
    assert row["macs"] == counted_macs(layer, shape)
    assert row["dense_macs"] == counted_macs(case.twin(**settings).double(), shape)


@pytest.mark.parametrize("settings", [{"padding_mode": "reflect", "padding": 2}, {"padding": "same"}], ids=str)
def test_macs_on_a_border_that_is_added_beforehand(settings: dict):
    case = Case("tucker", "channels", "open", "conv")
    layer = case.layer(twin=case.twin(**settings))
    (row,) = count(nn.Sequential(layer), (IN, *IMAGE))["layers"]
    assert row["macs"] == counted_macs(layer, (IN, *IMAGE))


def test_the_printed_table(capsys: pytest.CaptureFixture[str]):
    model = compress(archs.build(ArchConfig(name="lenet5"), 1, 10, 28), "cp", 4, (1, 28, 28))
    print(Report(count(model, (1, 28, 28))))
    printed = capsys.readouterr().out
    for word in ("conv1", "conv2", "fc1", "fc2", "50x20x5x5", "20x4 5x5x4 50x4", "dense", "cp"):
        assert word in printed
    # conv1 20*25 + 20, conv2 4*(20 + 25 + 50) + 50, fc1 4*(1250 + 320) + 320, fc2 320*10 + 10
    assert f"{520 + 430 + 6_600 + 3_210:,} parameters" in printed


def test_a_network_that_takes_more_is_not_said_to_take_fewer():
    model = compress(nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 10)), "tt", 4, (40,), layout="matrix")
    counts = {**count(model, (40,)), "dense_macs": 2000}
    assert "500 MACs, dense 2,000: 4.00x fewer" in str(Report({**counts, "macs": 500}))
    assert "5,000 MACs, dense 2,000: 2.50x more" in str(Report({**counts, "macs": 5000}))


def test_a_model_that_takes_gradients_counts_the_pass_to_what_it_takes_them_of():
    """A force is the gradient of an energy."""

    class Force(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.hidden, self.last = nn.Linear(3, 64), nn.Linear(64, 64), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                energy = self.last(torch.tanh(self.hidden(torch.tanh(self.first(x)))))
                return torch.autograd.grad(energy.sum(), x)[0]

    model = compress(Force(), "tt", 2, (3,), keep=["first", "last"], plan="chain", layout="channels")
    first, hidden, last = count(model, (3,))["layers"]
    assert (first["macs"], last["macs"]) == (3 * 64, 64)
    assert (hidden["macs"], hidden["dense_macs"]) == (2 * 64 * 2, 64 * 64)


def test_sparse_parameters_have_all_their_entries():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model.edges = nn.Parameter(torch.eye(4).to_sparse())
    compress(model, "tt", "2x", (64,))
    assert count(model, (64,))["dense_parameters"] == 2 * (64 * 64 + 64) + 16


def test_sparse_tensors_are_products_that_are_counted_for_nobody():
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)
            self.register_buffer("edges", torch.eye(4).to_sparse())

        def forward(self, x: Tensor, more: Tensor) -> Tensor:
            return more @ (self.edges @ self.layer(x))

    shown = (torch.randn(4, 64), torch.eye(4).to_sparse_csr())
    model = compress(Graph(), "tt", 2, example_inputs=shown, keep=[], plan="chain", layout="channels")
    (layer,) = count(model, example_inputs=shown)["layers"]
    assert (layer["macs"], layer["dense_macs"]) == (4 * 2 * 64 * 2, 4 * 64 * 64)
