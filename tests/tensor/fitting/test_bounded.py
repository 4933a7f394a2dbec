"""Error-preserving correction: components that cancel are brought down, the error stays."""

from __future__ import annotations

import math

import pytest
import torch
from cases import Case, einsum_dense
from torch import Tensor

from tdcompress.bench.fit import Fit
from tdcompress.compression.tensorly.fitting import algorithm
from tdcompress.tensor.fitting import decompose as fitting
from tdcompress.tensor.fitting.als import work
from tdcompress.tensor.fitting.bounded import CANCELLING, bounded, cancellation
from tdcompress.tensor.fitting.decompose import decompose, own, relative_error
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Graph
from tdcompress.tensor.weight import over_modes


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def components(graph: Graph, cores: list[Tensor]) -> float:
    """The largest sum, over the bonds, of the components' squared norms over that of W, each built by einsum."""
    whole = einsum_dense(graph, cores).square().sum()
    sums = []
    for bond in graph.bonds:
        parts = (
            [
                c.narrow(k.indices.index(bond), n, 1) if bond in k.indices else c
                for k, c in zip(graph.cores, cores, strict=True)
            ]
            for n in range(graph.sizes[bond])
        )
        sums.append(sum(einsum_dense(graph, part).square().sum() for part in parts))
    return float(max(sums) / whole)


def diverging(large: float) -> tuple[Graph, Tensor, list[Tensor]]:
    """Two rank-one terms of opposite sign that approach a tensor of border rank two as they grow (Kolda 2009, 3.3)."""
    graph = Case("cp", "channels", "merged", "conv").graph(rank=3)
    bases = {core.name: torch.linalg.qr(normal(math.prod(graph.shape(core)[:-1]), 2))[0].T for core in graph.cores}
    cores = []
    for n, core in enumerate(graph.cores):
        first, second = bases[core.name]
        terms = [first + second / large, first, normal(len(first))]
        scales = (large, -large, 0.0) if n == 0 else (1.0, 1.0, 1.0)
        value = torch.stack([scale * term for scale, term in zip(scales, terms, strict=True)], 1)
        cores.append(value.reshape(graph.shape(core)))
    limit = einsum_dense(graph, cores)
    weight = limit + 0.1 * normal(*limit.shape) * limit.norm() / limit.numel() ** 0.5
    return graph, weight, cores


@pytest.mark.parametrize("large", [10.0, 100.0])
def test_cancelling_components_are_brought_down_at_the_same_error(large: float):
    graph, weight, cores = diverging(large)
    before = relative_error(graph, cores, weight)
    found = bounded(graph, weight, cores, 1.001 * before * float(weight.norm()))
    assert components(graph, cores) > large  # it does diverge
    assert components(graph, found) < 0.1 * components(graph, cores)
    assert float((einsum_dense(graph, found) - weight).norm() / weight.norm()) <= 1.001 * before * (1 + 1e-9)


def test_cores_of_which_a_sweep_would_take_minutes_stay(monkeypatch):
    graph, weight, cores = diverging(10.0)
    monkeypatch.setattr("tdcompress.tensor.fitting.bounded.WORK", 10 * work(graph) / 2.4)  # two sweeps at any rate
    assert components(graph, bounded(graph, weight, cores, float(weight.norm()))) < components(graph, cores)
    monkeypatch.setattr("tdcompress.tensor.fitting.bounded.WORK", 10 * work(graph) / 2.6)
    assert bounded(graph, weight, cores, float(weight.norm())) == cores


@pytest.mark.parametrize("format", ["cp", "tr"])
def test_what_cancels_is_measured_as_by_hand(format: str):
    graph = Case(format, "split", "merged", "conv").graph(rank=3)
    cores = [normal(*graph.shape(core)) for core in graph.cores]
    assert cancellation(graph, cores) == pytest.approx(components(graph, cores))


@pytest.mark.parametrize("format", ["cp", "tr"])
def test_a_fit_whose_components_cancel_is_corrected(format: str, monkeypatch):
    graph = Case(format, "channels", "merged", "conv").graph({"cp": 24, "tr": 5}[format])
    weight = normal(*(graph.sizes[mode] for mode in graph.modes))
    monkeypatch.setattr("tdcompress.tensor.fitting.decompose.CANCELLING", math.inf)
    plain = decompose(graph, weight, 10)
    monkeypatch.setattr("tdcompress.tensor.fitting.decompose.CANCELLING", 1.0)
    found = decompose(graph, weight, 10)
    assert components(graph, found) < 0.98 * components(graph, plain)
    assert sum(core.square().sum() for core in found) < 0.99 * sum(core.square().sum() for core in plain)
    assert relative_error(graph, found, weight) <= 1.002 * relative_error(graph, plain, weight)


@pytest.mark.parametrize("format", ["cp", "tr"])
def test_a_fit_of_what_falls_off_and_nearly_cancels(format: str):
    """As trained weights do: slices of falling norms, and two terms of opposite sign that are nearly collinear."""
    graph = Case(format, "channels", "merged", "conv").graph({"cp": 6, "tr": 2}[format], (16, 24, 3, 3))
    bases = [normal(2, size) for size in (16, 24, 9)]
    one, two = (torch.einsum("o,i,k->oik", *(a + c * b for a, b in bases)).reshape(16, 24, 3, 3) for c in (0.1, 0))
    falling = normal(16, 24, 3, 3) / (torch.arange(1, 17).view(-1, 1, 1, 1) * torch.arange(1, 25).view(-1, 1, 1)) ** 0.7
    weight = over_modes(graph, (one - two) / (one - two).norm() + falling / falling.norm())
    found, theirs = (decompose(graph, weight, algorithm=way) for way in (own, algorithm(FORMATS[format])))
    dense = einsum_dense(graph, found)
    assert relative_error(graph, found, weight) <= 1.001 * relative_error(graph, theirs, weight)
    assert components(graph, found) < max(CANCELLING, 0.5 * components(graph, theirs))
    assert float((dense * weight).sum() / dense.square().sum()) == pytest.approx(
        1, abs=1e-6
    )  # nothing is missing of it


@pytest.mark.parametrize(("format", "shape", "rank"), [("tr", (16, 16, 3, 3), "4"), ("cp", (32, 16, 3, 3), "16")])
def test_as_many_sweeps_are_free_of_the_penalty_as_the_bound_allows(monkeypatch, format, shape, rank):
    fit, found = Fit(shape, format, rank), {}
    graph, weight = fit.graph, fit.weight()
    for free in ((), (30,), fitting.FREE):
        monkeypatch.setattr(fitting, "FREE", free)
        cores = [core.double() for core in decompose(graph, weight)]
        found[free] = relative_error(graph, cores, weight), cancellation(graph, cores)
    penalised, all_at_once, some = found.values()
    assert all_at_once == penalised  # they would cancel too much
    assert some[0] < 0.999 * penalised[0] and penalised[1] < some[1] < 1.001 * fitting.GROWN * penalised[1]
