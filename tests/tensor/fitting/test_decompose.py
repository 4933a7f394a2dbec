"""Fitting the cores of every graph to a dense weight, against tensorly and against singular values."""

from __future__ import annotations

import itertools
import math

import pytest
import tensorly
import torch
from cases import ALL, CASES, Case, Largest, einsum_dense, random_cores
from tensorly.decomposition import parafac, tensor_ring, tensor_ring_als, tensor_train, tucker
from torch import Tensor

from tdcompress.bench.fit import falling
from tdcompress.compression.spec import build_graph
from tdcompress.compression.tensorly.fitting import algorithm
from tdcompress.config.schema import MethodConfig
from tdcompress.tensor.caps import capped, caps
from tdcompress.tensor.fitting import decompose as fitting
from tdcompress.tensor.fitting.als import Alternation, alternate, balanced
from tdcompress.tensor.fitting.decompose import decompose, relative_error
from tdcompress.tensor.fitting.truncation import leading
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Graph


def error(graph: Graph, cores: list[Tensor], weight: Tensor) -> float:
    return float((einsum_dense(graph, cores) - weight).norm() / weight.norm())


def full(graph: Graph) -> Graph:
    """Every bond as large as it can be of use."""
    return capped(graph, caps(graph))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_weight_of_the_format_is_recovered(case: Case):
    graph = case.graph()
    dense = math.prod(graph.sizes[mode] for mode in graph.modes)
    once_is_enough = not graph.is_tree and graph.parameters < dense  # from some starts it is not found
    errors: list[float] = []
    for seed in range(3):
        weight = einsum_dense(graph, random_cores(graph, seed)).detach()
        cores = decompose(graph, weight, seed=seed + 100)  # of the same seed a start would be the solution itself
        assert [tuple(core.shape) for core in cores] == [graph.shape(core) for core in graph.cores]
        errors.append(error(graph, cores, weight))
        assert relative_error(graph, cores, weight) == pytest.approx(errors[-1], rel=1e-3, abs=1e-12)
        if once_is_enough and errors[-1] < 1e-5:
            return
    if graph.is_tree:
        assert max(errors) < 1e-9
    else:  # more unknowns than entries: updates crawl along valleys
        assert not once_is_enough and sorted(errors)[1] < 0.06


@pytest.mark.parametrize("case", [case for case in ALL if case.graph().is_tree], ids=str)
def test_full_rank_is_exact(case: Case):
    graph = full(case.graph())
    weight = normal(*(graph.sizes[mode] for mode in graph.modes))
    assert error(graph, decompose(graph, weight), weight) < 1e-9


def test_full_rank_is_exact_where_sweeps_find_it():
    graph = full(Case("cp", "channels", "merged", "conv").graph())
    weight = normal(*(graph.sizes[mode] for mode in graph.modes))
    assert error(graph, decompose(graph, weight), weight) < 1e-3


def test_a_fit_that_no_time_suffices_for_is_swept_twice(monkeypatch):
    graph = Case("tr", "channels", "merged", "conv").graph()
    weight, sweeps = normal(*(graph.sizes[mode] for mode in graph.modes)), []
    sweep = Alternation.sweep
    monkeypatch.setattr(Alternation, "sweep", lambda fit: sweeps.append(fit.graph.ranks) or sweep(fit))
    for limit in ("WORK", "CHEAP", "POLISH"):
        monkeypatch.setattr(fitting, limit, 1.0)
    decompose(graph, weight)
    assert sweeps == [graph.ranks, graph.ranks]


SMALL = [(48, 64), (16, 8, 3, 3)]


def default(format: str, shape: tuple[int, ...], rank: int | None = None) -> Graph:
    """The graph of a weight as ``tdcompress.decompose`` holds it, at a rank or at its caps."""
    graph = build_graph(shape, FORMATS[format], MethodConfig(format=format))
    return capped(graph, caps(graph) if rank is None else dict.fromkeys(graph.bonds, rank))


def up_to_caps(format: str, shape: tuple[int, ...]) -> list[int]:
    """1, 4, 16 .. and the largest cap."""
    largest = max(default(format, shape).ranks.values(), default=1)
    return [*(4**k for k in range(((largest - 1).bit_length() + 1) // 2)), largest]


def is_chain_exact(format: str, graph: Graph) -> bool:
    """Whether this is a ring whose bonds hold the unfoldings of the train that it is cut open to, at any of them."""
    if format != "tr":
        return False
    sites = [math.prod(graph.sizes[i] for i in core.indices if i in graph.modes) for core in graph.cores]
    bonds = [graph.sizes[core.indices[-1]] for core in graph.cores]  # from each core to the next
    count = len(sites)
    return any(
        all(min(math.prod(order[:k]), math.prod(order[k:])) <= bonds[(first + k - 1) % count] for k in range(1, count))
        for first in range(count)
        for order in [sites[first:] + sites[:first]]
    )


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_error_falls_with_the_rank_until_it_is_exact(format: str, shape: tuple[int, ...]):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    errors = []
    for rank in up_to_caps(format, shape):
        graph = default(format, shape, rank)
        cores = decompose(graph, weight, 30)
        entries = weight.double().reshape([graph.sizes[mode] for mode in graph.modes])
        errors.append(error(graph, [core.double() for core in cores], entries))
        if is_chain_exact(format, graph):
            assert errors[-1] < 1e-6
        if format != "cp":
            dense = einsum_dense(graph, [core.double() for core in cores])
            rounded = einsum_dense(graph, [core.bfloat16().double() for core in cores])
            assert (rounded - dense).norm() < 10 * 2**-8 * entries.norm()  # a few of bfloat16's epsilons
    for before, after in itertools.pairwise(errors):
        assert after <= 1.01 * before + 1e-7  # single precision
    assert errors[-1] < 1e-6


def tensorly_error(format: str, graph: Graph, weight: Tensor) -> float:
    """tensorly's own fit of the weight, its dimensions in the order of the graph's sites."""
    ranks, ordered = list(graph.ranks.values()), weight.permute(1, 2, 3, 0).flatten(1, 2)
    with tensorly.backend_context("pytorch"):
        if format == "cp":
            found = tensorly.cp_to_tensor(parafac(ordered, ranks[0], n_iter_max=100, init="svd", random_state=0))
        elif format == "tucker":
            found = tensorly.tucker_to_tensor(tucker(ordered, ranks))
        elif format == "tt":
            found = tensorly.tt_to_tensor(tensor_train(ordered, [1, *ranks, 1]))
        else:
            found = tensorly.tr_to_tensor(tensor_ring_als(ordered, [*ranks, ranks[0]], random_state=0))
            if ranks[0] * ranks[1] <= len(ordered):
                opened = tensorly.tr_to_tensor(tensor_ring(ordered, [*ranks, ranks[0]]))
                found = min(found, opened, key=lambda one: (one - ordered).norm())
    return float((found - ordered).norm() / ordered.norm())


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize(("rank", "shape"), [(3, (12, 10, 3, 3)), (4, (16, 24, 3, 3))])
@pytest.mark.parametrize("format", ["cp", "tucker", "tt", "tr"])
def test_never_worse_than_tensorly(format: str, rank: int, shape: tuple[int, ...], decay: float):
    graph = Case(format, "channels", "merged", "conv").graph(rank, shape)
    weight = falling(shape, decay)
    found = error(graph, decompose(graph, weight), weight)
    assert found <= 1.01 * tensorly_error(format, graph, weight)
    theirs = decompose(graph, weight, algorithm=algorithm(FORMATS[format]))
    assert found <= 1.01 * error(graph, theirs, weight)


@pytest.mark.parametrize("case", [case for case in CASES if case.format == "ht"], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_hierarchical_truncation_is_within_its_bound(case: Case, rank: int):
    # No fit is better than the tail of any one unfolding, the root's two bonds have the same unfolding.
    graph = case.graph(rank)
    weight = normal(*(graph.sizes[mode] for mode in graph.modes))
    tails = {}
    for bond, size in graph.ranks.items():
        branch = min(graph.branches(bond), key=lambda part: sorted(part))
        rows = frozenset(i for k in branch for i in graph.cores[k].indices if i in graph.modes)
        rows = min(rows, frozenset(graph.modes) - rows, key=sorted)
        order = sorted(graph.modes, key=lambda mode: mode not in rows)
        unfolding = weight.permute([graph.modes.index(mode) for mode in order]).flatten(0, len(rows) - 1)
        values = torch.linalg.svdvals(unfolding.flatten(1))
        tails[rows] = max(tails.get(rows, 0.0), float(values[size:].square().sum()))
    lowest = math.sqrt(max(tails.values()))
    for sweeps in (0, 100):
        found = float((einsum_dense(graph, decompose(graph, weight, sweeps)) - weight).norm())
        assert lowest * (1 - 1e-9) <= found <= math.sqrt(sum(tails.values())) * (1 + 1e-9)
        assert found <= math.sqrt(len(tails)) * (1 + 1e-9) * lowest


@pytest.mark.parametrize("case", [case for case in CASES if case.graph().is_tree], ids=str)
def test_sweeps_never_raise_the_error_of_a_tree(case: Case):
    graph = case.graph(2)
    weight = normal(*(graph.sizes[mode] for mode in graph.modes))
    errors = [error(graph, decompose(graph, weight, sweeps), weight) for sweeps in (1, 2, 4, 8, 16)]
    for before, after in itertools.pairwise(errors):
        assert after <= before + 1e-9


@pytest.mark.parametrize("case", [case for case in CASES if not case.graph().is_tree], ids=str)
def test_alternating_updates_lower_the_error_from_any_start(case: Case):
    graph = case.graph(2)
    weight = normal(*(graph.sizes[mode] for mode in graph.modes))
    start = [core.detach() for core in random_cores(graph)]
    errors = [error(graph, alternate(graph, weight, start, sweeps), weight) for sweeps in (1, 2, 4, 8, 16)]
    assert errors[0] < 1 and errors[-1] < 0.99 * errors[0]
    for before, after in itertools.pairwise(errors):
        assert after <= 1.001 * before  # the penalty that keeps the cores small may cost as much


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_degenerate_weights_give_finite_cores(case: Case, dtype: torch.dtype):
    graph = case.graph()
    sizes = [graph.sizes[mode] for mode in graph.modes]
    one_entry = torch.zeros(sizes)
    one_entry.view(-1)[-1] = 1
    for weight in (torch.zeros(sizes), torch.ones(sizes), 1e-20 * torch.ones(sizes), 1e15 * one_entry):
        cores = decompose(graph, weight.to(dtype))
        assert all(core.dtype == dtype and core.isfinite().all() for core in cores)
        assert relative_error(graph, cores, weight) < 1e-3


def test_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        decompose(CASES[0].graph(), torch.full(CASES[0].twin().weight.shape, math.nan))


@pytest.mark.parametrize("case", [case for case in CASES if case.kind == "conv"], ids=str)
def test_a_kernel_of_one_tap(case: Case):
    graph = case.graph(2, (12, 8, 1, 1))
    weight = einsum_dense(graph, random_cores(graph)).detach()
    assert min(error(graph, decompose(graph, weight, seed=seed), weight) for seed in (100, 101, 102)) < 1e-5


@pytest.mark.parametrize("shape", [(14, 10, 1, 1), (14, 1, 3, 3), (1, 10, 3, 3)], ids=str)
def test_of_a_matrix_in_disguise_the_fit_is_its_truncated_svd(shape: tuple[int, ...]):
    """A 1x1 convolution, one in as many groups as it has channels, one of a single output: one factor has one value."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    graph = build_graph(shape, FORMATS["cp"], MethodConfig("cp", layout="channels", kernel="merged"))
    graph = capped(graph, {"r": 4})
    cores = decompose(graph, weight)
    values = torch.linalg.svdvals(weight.squeeze().flatten(1) if 1 in shape[1:] else weight[0].flatten(1))
    best = (values[graph.ranks["r"] :].norm() / values.norm()).item()
    assert relative_error(graph, cores, weight) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    ("layout", "ranks", "values"),
    [
        ("channels", {"r0": 2, "r1": 3, "r2": 3}, 6),
        ("channels", {"r0": 2, "r1": 3, "r2": 2}, 4),
        ("channels", {"r0": 3, "r1": 1, "r2": 4}, 3),
        ("channels", {"r0": 4, "r1": 4, "r2": 4}, 10),
        ("matrix", {"r0": 2, "r1": 3}, 6),
        ("matrix", {"r0": 1, "r1": 3}, 3),
    ],
    ids=str,
)
def test_of_a_ring_with_one_tap_the_fit_is_its_truncated_svd(layout: str, ranks: dict[str, int], values: int):
    """Each value of r0 is a component of its own with each value that both r1 and r2 have."""
    weight = torch.randn((14, 10, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method = MethodConfig("tr", layout=layout, kernel="merged")
    graph = build_graph((14, 10, 1, 1), FORMATS["tr"], method).with_ranks(ranks)
    cores = decompose(graph, weight)
    singular = torch.linalg.svdvals(weight.squeeze())
    best = (singular[values:].norm() / singular.norm()).item()
    assert relative_error(graph, cores, weight) == pytest.approx(best, rel=1e-6, abs=1e-7)


def test_a_long_unfolding_is_sampled_without_loss():
    left, right = torch.linalg.qr(normal(1500, 40))[0], torch.linalg.qr(normal(1400, 40, seed=1))[0]
    values = 0.8 ** torch.arange(40)
    matrix = left * values @ right.T
    basis = leading(matrix, 20, torch.Generator().manual_seed(0))
    torch.testing.assert_close(basis.T @ basis, torch.eye(20, dtype=torch.float64))
    lost = (matrix - basis @ (basis.T @ matrix)).norm()
    assert lost == pytest.approx(float(values[20:].norm()), rel=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.kind == "conv"], ids=str)
def test_nothing_much_larger_than_the_weight_is_formed(case: Case):
    graph = case.graph("reference", (64, 64, 3, 3), factors=3)
    weight = normal(64, 64, 3, 3)
    with Largest() as seen:
        decompose(graph, weight, sweeps=2)
    assert seen.entries <= 3 * max(weight.numel(), *(math.prod(graph.shape(core)) for core in graph.cores))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_scale_is_shared_evenly(case: Case):
    graph = case.graph()
    cores = [core.detach() * 10**k for k, core in enumerate(random_cores(graph))]
    shared = balanced(graph, cores)
    torch.testing.assert_close(einsum_dense(graph, shared), einsum_dense(graph, cores))
    norms = torch.stack([core.norm() for core in shared])
    assert norms.max() / norms.min() < 1.01
