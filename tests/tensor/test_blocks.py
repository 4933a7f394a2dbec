"""Modes that several cores carry: caps, fits, norms and cuts of every block, against plain matrices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from blocks import registered  # noqa: F401
from cases import assert_close, einsum_dense, random_cores

from tdcompress.compression.ranks.scales import passes, rungs
from tdcompress.tensor.build import build, family
from tdcompress.tensor.caps import absorbed, capped, caps
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.fitting.decompose import decompose, relative_error
from tdcompress.tensor.fitting.initial import orthogonal
from tdcompress.tensor.formats import FORMATS, Format
from tdcompress.tensor.graph import Core, Graph, validate
from tdcompress.tensor.norm import squared_norm
from tdcompress.tensor.rounding import energies, truncated

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, MODES = (12, 8, 3, 2), {"in_modes": [2, 4], "out_modes": [4, 3]}


def graph_of(name: str, rank: int, **settings: object) -> Graph:
    graph = build(SHAPE, FORMATS[name], **{**MODES, **settings})
    return capped(graph, dict.fromkeys(graph.bonds, rank))


def gaussian(graph: Graph) -> tuple[list[torch.Tensor], torch.Tensor]:
    cores = [core.detach() for core in random_cores(graph)]
    return cores, einsum_dense(graph, cores)


def blocks_of(weight: torch.Tensor) -> torch.Tensor:
    """A weight over (o1, o2, i1, i2, kh, kw) as a matrix i2 by o2 kh kw for each (i1, o1)."""
    return weight.permute(2, 0, 3, 1, 4, 5).reshape(2, 4, 4, 18)


def test_a_weight_by_hand():
    graph = graph_of("btt", 3)
    (a, b), weight = gaussian(graph)
    assert [core.indices for core in graph.cores] == [("i1", "i2", "o1", "r"), ("i1", "r", "o1", "o2", "kh", "kw")]
    wanted = torch.zeros(4, 3, 2, 4, 3, 2, dtype=torch.float64)
    for i1 in range(2):
        for o1 in range(4):
            wanted[o1, :, i1] = torch.tensordot(a[i1, :, o1], b[i1, :, o1], 1).movedim(0, 1)
    assert_close(weight, wanted)
    assert graph.parameters == 3 * (8 * 4 + 2 * 12 * 6) and graph.dense_parameters == 576
    assert_close(squared_norm(graph, [a, b]), wanted.square().sum())


def test_caps_are_those_of_a_block(registered):  # noqa: F811
    assert caps(graph_of("btt", 1)) == {"r": 4}  # 4 by 3 * 6
    # i2 by o2 k in each (i1, o1); o2 by i1 i2 k in each o1
    assert caps(graph_of(registered, 1)) == {"r1": 4, "r2": 3}
    # A core that is square in every block goes into its neighbour, as long as two are left
    graph = absorbed(graph_of(registered, 4))
    assert [core.indices for core in graph.cores] == [("i1", "i2", "o1", "kh", "kw", "r2"), ("r2", "o1", "o2")]


def test_the_fit_is_the_truncated_svd_of_every_block():
    weight = torch.randn(12, 8, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(blocks_of(weight.reshape(4, 3, 2, 4, 3, 2)))
    for rank in (1, 3, 4):
        graph = graph_of("btt", rank)
        error = relative_error(graph, decompose(graph, weight), weight)
        assert error == pytest.approx(float(values[..., rank:].norm() / weight.norm()), abs=1e-12)


def test_three_cores_are_found_again_and_a_cut_loses_what_was_said(registered):  # noqa: F811
    large = graph_of(registered, 3)
    cores, weight = gaussian(large)
    assert relative_error(large, decompose(large, weight), weight) < 1e-12
    for bond in large.bonds:
        shares = energies(large, cores, bond)
        smaller, found = truncated(large, cores, {**large.ranks, bond: 2})
        assert relative_error(smaller, found, weight) ** 2 == pytest.approx(float(shares[2:].sum()), rel=1e-9)
        # The two-site updates start from a truncation that is no better than twice this, one for each bond
        best = relative_error(smaller, decompose(smaller, weight), weight)
        assert best <= (1 + 1e-9) * relative_error(smaller, found, weight)


def hyper(layout) -> list[Core]:
    """A sum of products of three cores, of which two share the first inputs."""
    (first, *others), (o, *rest) = layout.input_modes, layout.output_modes
    kernel = [mode for site in layout.kernel for mode in site]
    sites = ((first, *others), (first, *kernel, o), tuple(rest))
    return [Core(f"factor{k}", (*site, "r")) for k, site in enumerate(sites)]


def ring(layout) -> list[Core]:
    """A closed chain of three cores, of which two share the first inputs."""
    factors = hyper(layout)
    return [Core(core.name, (f"r{k}", *core.indices[:-1], f"r{(k + 1) % 3}")) for k, core in enumerate(factors)]


@pytest.mark.parametrize("shape", [(7, 7), (5, 7, 1, 1)])
@pytest.mark.parametrize("topology", [hyper, ring])
def test_modes_of_a_single_value_that_sit_on_several_cores_are_fitted(topology, shape):
    graph = build(shape, Format("three", topology, layout="split"))
    assert graph.sizes["i1"] == 1
    full = capped(graph, dict.fromkeys(graph.bonds, 10**6))
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = weight.reshape([graph.sizes[mode] for mode in graph.modes])
    assert relative_error(full, decompose(full, weight), weight) < 1e-3


def test_of_factors_that_are_always_together_one_choice_is_enough():
    two, three = (family((16, 24), FORMATS["btt"], factors=count) for count in (2, 3))
    pairs = {(graph.sizes["i1"], graph.sizes["o1"]) for graph in two}
    products = {tuple(math.prod(graph.sizes[f"{side}{k}"] for k in (1, 2)) for side in "io") for graph in three}
    assert len(two) == len(pairs) == 5 * 8 and len(three) == len(products) and products == pairs


@pytest.mark.parametrize("topology", [hyper, ring])
def test_alternating_least_squares_solve_every_block(topology):
    graph = build(SHAPE, Format("three", topology, layout="split"), **MODES)
    small, full = (capped(graph, dict.fromkeys(graph.bonds, rank)) for rank in (2, 10**6))
    weight = gaussian(small)[1]
    assert relative_error(small, decompose(small, weight), weight) < 1e-3
    drawn = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert relative_error(full, decompose(full, drawn), drawn) < 1e-3


def test_every_block_starts_semi_orthogonal():
    weight = torch.randn(SHAPE)
    first, second = orthogonal(graph_of("btt", 3), weight)
    for i1 in range(2):
        for o1 in range(4):
            for matrix in (first[i1, :, o1], second[i1, :, o1].flatten(1)):
                gram = min(matrix @ matrix.mT, matrix.mT @ matrix, key=len)
                torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)))


def test_a_ladder_climbs_to_the_dense_weight_in_small_steps():
    graphs = family((128, 128, 3, 3), FORMATS["btt"])
    assert {graph.parameters for graph in graphs} == {128 * 2**a + 1152 * 2**b for a in range(8) for b in range(8)}
    found = rungs(graphs, 1)
    sizes = [graph.parameters for graph in found]
    assert sizes == sorted(set(sizes)) and sizes[0] == 1280 and sizes[-2] < 147_456 <= sizes[-1]
    assert max(b / a for a, b in itertools.pairwise(sizes) if b > 14_746) < 1.2
    # Of rank one 2 by 2 blocks pass 4 channels, 16 by 8 all that there are
    assert passes(next(graph for graph in graphs if graph.sizes["i1"] == graph.sizes["o1"] == 2)) == (4, 1)
    assert max(passes(graph)[0] for graph in found) == 128
    small = rungs(family((24, 1, 3, 3), FORMATS["btt"]), 1)
    assert [graph.parameters >= graph.dense_parameters for graph in small] == [True]  # the smallest, of no use


def test_ranks_within_blocks_are_multiples_of_four_from_eight_on():
    graphs = family((128, 128, 3, 3), FORMATS["btt"])
    found = {(rank, caps(graph)[bond]) for graph in rungs(graphs, 8) for bond, rank in graph.ranks.items()}
    assert all(rank % 4 == 0 for rank, cap in found if rank >= 8 and rank != cap)
    assert all(rank % 8 == 0 for rank, cap in found if rank >= 32 and rank != cap)
    assert {rank for rank, _ in found} >= {5, 12, 20, 32}
    matrices = family((512, 512), FORMATS["btt"])
    any_of_them, good = ([graph.parameters for graph in rungs(matrices, multiple)] for multiple in (0, 1))
    assert any(abs(10 * size / 512**2 - 1) < 0.02 for size in any_of_them)
    assert not any(abs(10 * size / 512**2 - 1) < 0.02 for size in good)
    assert any(rank % 4 and rank > 8 for graph in rungs(graphs, 1) for rank in graph.ranks.values())


@pytest.mark.parametrize(
    ("cores", "said"),
    [
        ([Core("a", ("i", "o", "r")), Core("b", ("r", "s")), Core("c", ("s", "o"))], "mode o sits on cores that no"),
        ([Core("a", ("i", "r")), Core("b", ("o", "r", "s")), Core("c", ("s",))], None),
        ([Core("a", ("i", "o", "r")), Core("b", ("o", "r"))], None),
        ([Core("a", ("i",)), Core("b", ("o",))], "no bonds connect a with b"),
        ([Core("a", ("i", "r")), Core("b", ("r",)), Core("c", ("o", "s")), Core("d", ("s",))], "connect a with c"),
    ],
)
def test_cores_that_share_a_mode_are_connected(cores: list[Core], said: str | None):
    if said is None:
        validate(cores, ("o", "i"))
        return
    with pytest.raises(ValueError, match=said):
        validate(cores, ("o", "i"))


def test_what_it_cannot_have_is_refused():
    with pytest.raises(ConfigError, match="btt has no layout=channels, use split"):
        build(SHAPE, FORMATS["btt"], layout="channels")
    twice = Format("twice", lambda layout: [Core("a", (*layout.modes, "r")), Core("b", ("r", "kh"))])
    with pytest.raises(ConfigError, match="format twice: mode kh sits on several cores"):
        build(SHAPE, twice, layout="channels")
    assert math.prod(graph_of("btt", 10**6).ranks.values()) == 4
