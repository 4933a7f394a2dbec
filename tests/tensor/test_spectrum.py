"""Ranks from a given weight: as many as it has been built of, by energy and by VBMF."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case, einsum_dense, random_cores
from torch import nn

from tdcompress.compression.spec import build_graph
from tdcompress.compression.swap import compress
from tdcompress.config.schema import MethodConfig
from tdcompress.layers.base import Factorised
from tdcompress.tensor.fitting.vbmf import vbmf_rank
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.spectrum import energy, unfolding_ranks

pytestmark = pytest.mark.usefixtures("one_thread")


def noisy(rows: int, columns: int, rank: int, noise: float, seed: int = 0) -> torch.Tensor:
    """A product of Gaussian factors, entries of variance one, and Gaussian noise."""
    draw = torch.Generator().manual_seed(seed)
    left, right = torch.randn(rows, rank, generator=draw), torch.randn(rank, columns, generator=draw)
    return left @ right / max(rank, 1) ** 0.5 + noise * torch.randn(rows, columns, generator=draw)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 256), (300, 100)])
@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_vbmf_finds_what_lies_in_the_noise(rows: int, columns: int, rank: int, scale: float):
    values = torch.linalg.svdvals(scale * noisy(rows, columns, rank, 0.3).double())
    assert vbmf_rank(values, rows, columns) == vbmf_rank(values, columns, rows) == rank


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 256), (300, 100), (512, 576)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_vbmf_finds_nothing_in_pure_noise(rows: int, columns: int, seed: int):
    # The largest singular value lies at the Marchenko-Pastur edge 1 + sqrt(a), the threshold above it.
    assert vbmf_rank(torch.linalg.svdvals(noisy(rows, columns, 0, 1.0, seed).double()), rows, columns) == 0


def test_vbmf_of_nothing_and_of_a_matrix_without_noise():
    assert vbmf_rank(torch.zeros(8), 8, 16) == 0
    assert vbmf_rank(torch.linalg.svdvals(noisy(64, 96, 7, 0.0).double()), 64, 96) == 7


def test_a_component_counts_from_the_threshold_on():
    # Unit noise: the threshold is M (1 + t)(1 + a / t), t = 2.5129 sqrt(a); at a = 1 that is 4.91 M.
    noise = torch.linalg.svdvals(noisy(400, 400, 0, 1.0).double())
    for square, rank in ((4.5, 0), (5.5, 1)):
        values = torch.cat([torch.tensor([(square * 400) ** 0.5], dtype=torch.float64), noise[1:]])
        assert vbmf_rank(values, 400, 400) == rank


@pytest.mark.parametrize(("share", "rank"), [(0.5, 1), (0.8, 1), (0.81, 2), (0.95, 2), (0.96, 3), (1.0, 3), (1e-9, 1)])
def test_energy_keeps_a_share_of_the_squared_norm(share: float, rank: int):
    values = torch.tensor([4.0, 3**0.5, 1.0, 0.0], dtype=torch.float64)  # squares 16, 3, 1 of 20
    assert energy(share)(values, 4, 4) == rank


@pytest.mark.parametrize("case", [case for case in CASES if case.format != "tr"], ids=str)
def test_a_weight_of_known_ranks_gets_them_back(case: Case):
    graph = case.graph(2)
    method = MethodConfig(format=case.format, **case.settings)
    empty = build_graph((12, 8, 3, 2) if case.kind == "conv" else (12, 8), FORMATS[case.format], method)
    weight = einsum_dense(graph, random_cores(graph)).detach()
    assert unfolding_ranks(empty, weight, energy(1 - 1e-9)).ranks == graph.ranks


def test_a_ring_shares_the_rank_of_a_cut():
    # Both bonds cross the one cut, so each has the root of its rank
    method = MethodConfig(format="tr", layout="matrix")
    graph = build_graph((16, 20), FORMATS["tr"], method)
    assert unfolding_ranks(graph, noisy(16, 20, 9, 0.0), energy(1 - 1e-9)).ranks == {"r0": 3, "r1": 3}


@pytest.mark.parametrize("rank", ["energy:0.99", "vbmf"])
def test_compress_reads_the_present_weights(rank: str):
    model = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4))
    with torch.no_grad():
        model[0].weight.copy_(noisy(64, 96, 6, 0.01))
        model[2].weight.copy_(noisy(48, 64, 3, 0.01))
    compress(model, "tt", rank, (96,), layout="matrix")
    assert [layer.graph.ranks for layer in model if isinstance(layer, Factorised)] == [{"r1": 6}, {"r1": 3}]


def test_a_layer_may_follow_its_weight_while_others_meet_a_budget():
    model = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4))
    with torch.no_grad():
        model[0].weight.copy_(noisy(64, 96, 6, 0.01))
    # 6 * 160 + 64 and 196 of the last leave 48 + 112 R
    compress(
        model, "tt", f"params:{960 + 64 + 196 + 48 + 1120}", (96,), layout="matrix", layers={"0": {"rank": "vbmf"}}
    )
    assert [layer.graph.ranks for layer in model if isinstance(layer, Factorised)] == [{"r1": 6}, {"r1": 10}]
