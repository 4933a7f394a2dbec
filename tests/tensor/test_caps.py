"""Caps of bonds, counted by hand and found useless to exceed by numpy's ranks."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
from cases import WAYS
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.compression.spec import build_graph
from tdcompress.config.schema import MethodConfig
from tdcompress.tensor.caps import bottleneck, capped, caps
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Core, Graph


def network(modes: dict[str, int], *cores: str) -> Graph:
    """Cores written as their indices, a letter each: capitals are modes."""
    parts = tuple(Core(f"core{k}", tuple(indices)) for k, indices in enumerate(cores))
    bonds = {i: 1 for core in parts for i in core.indices if i.islower()}
    return Graph(parts, tuple(modes), {**modes, **bonds})


BY_HAND = [
    # a: A | B C is 8, A B | C 16; b: A | B C is 8, B | A C 9; c: B | A C is 9, C | A B 16
    (({"A": 8, "B": 9, "C": 16}, "aAb", "bBc", "cCa"), {"a": 16, "b": 9, "c": 16}),
    # Both bonds pass the one cut's 12 between them: 4 * 4, not 3 * 3
    (({"A": 12, "B": 20}, "aAb", "bBa"), {"a": 4, "b": 4}),
    # Three modes on either side of any bond
    ((dict.fromkeys("ABCDEF", 4), "aAb", "bBc", "cCd", "dDe", "eEf", "fFa"), dict.fromkeys("abcdef", 64)),
    # 16 = A D | B C, and for the bond from B to C A C | B D
    (({"A": 8, "B": 8, "C": 2, "D": 2}, "aAb", "bBc", "cCd", "dDa"), {"a": 16, "b": 16, "c": 16, "d": 16}),
    (({"A": 2, "B": 6, "C": 4}, "Aa", "aBb", "bC"), {"a": 2, "b": 4}),
    # The CP rank is at most the product of all but the largest mode
    (({"A": 8, "B": 9, "C": 16}, "Ah", "Bh", "Ch"), {"h": 72}),
]


@pytest.mark.parametrize(("written", "expected"), BY_HAND, ids=lambda value: "-".join(map(str, value))[:40])
def test_caps_by_hand(written: tuple, expected: dict[str, int]):
    assert caps(network(*written)) == expected


def test_a_sum_of_blocks_has_as_many_as_cp_has_terms():
    """With all other bonds at one it is CP."""
    assert caps(network({"A": 8, "B": 9, "C": 16}, "hAa", "hBb", "hCc", "habc"))["h"] == 72


def test_a_bond_is_no_larger_than_what_its_cores_pass_on():
    ring = network({"A": 8, "B": 9, "C": 16}, "aAb", "bBc", "cCa")
    assert capped(ring, {"a": 1, "b": 50, "c": 50}).ranks == {"a": 1, "b": 8, "c": 16}
    assert capped(ring, {"a": 50, "b": 1, "c": 50}).ranks == {"a": 8, "b": 1, "c": 9}
    # A product of two bonds is not capped: 16 * 9 of a cut whose smaller side is 8
    assert capped(ring, {"a": 50, "b": 50, "c": 50}).ranks == {"a": 16, "b": 9, "c": 16}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=5))
def test_the_cap_of_a_ring_is_the_largest_rank_of_its_cuts(sizes: list[int]):
    count = len(sizes)
    weight = numpy.random.default_rng(0).standard_normal(sizes)
    names = "ABCDE"[:count]
    cores = [f"{'abcde'[k]}{names[k]}{'abcde'[(k + 1) % count]}" for k in range(count)]
    found = caps(network(dict(zip(names, sizes, strict=True)), *cores))
    for bond in range(count):  # between core bond - 1 and core bond
        ranks = []
        for inside in itertools.product((0, 1), repeat=count):
            rows = [k for k in range(count) if inside[k]]
            if inside[bond - 1] != inside[bond]:
                unfolding = weight.transpose(*rows, *(k for k in range(count) if not inside[k]))
                ranks.append(numpy.linalg.matrix_rank(unfolding.reshape(math.prod(sizes[k] for k in rows), -1)))
        assert found["abcde"[bond]] == max(ranks)


@pytest.mark.parametrize("shape", [(16, 16), (12, 16, 3, 3)], ids=str)
@pytest.mark.parametrize(("format", "layout"), WAYS)
def test_what_passes_a_weight_is_the_rank_of_its_matrix(format: str, layout: str, shape: tuple[int, ...]):
    """Of random cores, and of the two matrices that the kernel may lie on either side of."""
    graph = build_graph(shape, FORMATS[format], MethodConfig(format=format, layout=layout))
    random = numpy.random.default_rng(0)
    for ranks in itertools.product((1, 2, 3), repeat=min(3, len(graph.bonds))):
        graph = capped(graph, dict(zip(graph.bonds, itertools.cycle(ranks))))
        found = bottleneck(graph)
        both = [
            core for core in graph.cores if {*core.indices} & {*graph.inputs} and {*core.indices} & {*graph.outputs}
        ]
        assert (found is None) == bool(both)
        if found is None:
            return
        names = {index: k for k, index in enumerate(graph.sizes)}
        cores = [item for core in graph.cores for item in _written(core, graph, names, random)]
        kernel = [mode for mode in graph.modes if mode not in (*graph.inputs, *graph.outputs)]
        weight = numpy.einsum(*cores, [names[mode] for mode in (*graph.inputs, *kernel, *graph.outputs)])
        inputs = math.prod(graph.sizes[mode] for mode in graph.inputs)
        outputs = math.prod(graph.sizes[mode] for mode in graph.outputs)
        matrices = (weight.reshape(inputs, -1), weight.reshape(-1, outputs))
        assert found == min(numpy.linalg.matrix_rank(matrix) for matrix in matrices)


def _written(core: Core, graph: Graph, names: dict[str, int], random: numpy.random.Generator) -> tuple:
    return random.normal(size=graph.shape(core)), [names[index] for index in core.indices]


@pytest.mark.parametrize(
    ("asked", "kept"), [((1, 20), (1, 20)), ((20, 1), (20, 1)), ((4, 20), (4, 16)), ((9, 9), (8, 8))]
)
def test_one_of_parallel_bonds_may_be_larger_where_the_other_is_smaller(asked: tuple[int, int], kept: tuple[int, int]):
    graph = network({"A": 64, "B": 64}, "Aab", "Bab")  # all of the weight's rank passes 64 pairs
    assert tuple(capped(graph, dict(zip("ab", asked, strict=True))).ranks.values()) == kept
