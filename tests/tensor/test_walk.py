"""The contractions of a path: written out by hand for a chain, and blind to what modes are called."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import ALL, Case, assert_close, einsum_dense, random_cores

import tdcompress
from tdcompress import tensor
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.path import Geometry, Path, Term
from tdcompress.tensor.contraction.plan import compile_path
from tdcompress.tensor.contraction.roles import Parts
from tdcompress.tensor.contraction.search import paths
from tdcompress.tensor.contraction.walk import walk
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.graph import Core, Graph

TRAIN = Graph(
    (Core("a", ("i", "r")), Core("b", ("r", "kh", "kw", "s")), Core("c", ("s", "o"))),
    ("o", "i", "kh", "kw"),
    {"i": 4, "o": 5, "kh": 3, "kw": 2, "r": 2, "s": 3},
    inputs=("i",),
    outputs=("o",),
)


def test_a_chain_core_by_core():
    path = Path((Term(0, ("r",)), Term(1, ("s",)), Term(2, ("o",))), 0.0)
    first, second, third = walk(TRAIN, path, ("y", "x"))
    assert (first.before, first.after) == (("b", "y", "x", "i"), ("b", "y", "x", "r"))
    assert first.need == Parts(group=(), summed=("i",), kept=("b", "y", "x"), new=("r",))
    assert (second.members, second.done, second.axes) == ({1}, {0, 1}, ("kh", "kw"))
    assert second.need == Parts(group=(), summed=("r",), kept=("b", "y", "x"), new=("s",))
    assert (third.done, third.wanted, third.after) == ({0, 1, 2}, ("b", "y", "x", "s"), ("b", "y", "x", "o"))


def test_merged_cores_carry_their_modes_and_the_bonds_that_leave_them():
    (first, second) = walk(TRAIN, Path((Term(0, ("r",)), Term((1, 2), ("o",))), 0.0), ("y", "x"))
    assert first.indices == ("i", "r")
    assert second.indices == ("r", "kh", "kw", "o")
    assert second.members == {1, 2}


def test_another_arrangement():
    path = Path((Term(0, ("r",)), Term((1, 2), ("o",))), 0.0)
    steps = list(walk(TRAIN, path, (), lambda order, need, kernel, spread: (*need.summed, *need.kept)))
    assert [step.wanted for step in steps] == [("i", "b"), ("r", "b")]
    assert steps[-1].after == ("b", "o")


def renamed(graph: Graph) -> Graph:
    """The same graph, its channel modes called otherwise."""
    names = {mode: f"m{k}" for k, mode in enumerate(graph.modes) if mode not in ("kh", "kw")}

    def new(indices):
        return tuple(names.get(index, index) for index in indices)

    cores = tuple(replace(core, indices=new(core.indices)) for core in graph.cores)
    sizes = {names.get(index, index): size for index, size in graph.sizes.items()}
    return Graph(cores, new(graph.modes), sizes, new(graph.inputs), new(graph.outputs))


@pytest.mark.parametrize("case", [case for case in ALL if case.kind == "linear"], ids=str)
@pytest.mark.parametrize("plan", ["model", "chain", "dense"])
def test_input_and_output_modes_are_told_by_the_graph(case: Case, plan: str):
    graph = renamed(case.graph())
    cores = random_cores(graph)
    weight = einsum_dense(graph, cores)
    rows = torch.randn(6, *[graph.sizes[mode] for mode in graph.inputs], dtype=torch.float64)
    (path,) = paths(graph, Geometry(6), Rates(), plan)
    found = compile_path(graph, path)(rows.flatten(1), cores)
    matrix = weight.permute([graph.modes.index(mode) for mode in (*graph.outputs, *graph.inputs)])
    outputs = len(graph.outputs)
    assert_close(found, rows.flatten(1) @ matrix.flatten(outputs).flatten(0, outputs - 1).T)


def test_more_cores_than_can_be_searched_are_refused_and_put_together_all_the_same():
    """2 ** 12 - 1 subsets of the factors of a hyperedge hang together; of a chain of twelve only 78, its intervals."""
    with pytest.raises(ConfigError, match=r"12 cores can be contracted in too many orders to search .*fewer factors"):
        tdcompress.linear("cp", 64, 64, rank=2, factors=6, layout="split")
    with pytest.raises(ConfigError, match=r"20 cores can be contracted in too many orders to search .*fewer factors"):
        tdcompress.linear("tt", 1024, 1024, rank=2, factors=10, layout="split")
    with pytest.raises(ConfigError, match="31 cores can be contracted"):  # all whose subsets would fill 80 GB
        tdcompress.linear("ht", 1024, 1024, rank=2, factors=8, layout="split")
    chain = tdcompress.linear("tt", 64, 64, rank=2, factors=6, layout="split")
    chain.double()
    x = torch.randn(3, 64, dtype=torch.float64)
    assert_close(chain(x), x @ chain.to_dense().T + chain.bias)
    graph = tensor.graph_of((64, 64), tensor.find_format("cp"), layout="split", factors=6)
    graph = tensor.capped(graph, dict.fromkeys(graph.bonds, 2))
    assert_close(tensor.to_dense(graph, cores := random_cores(graph)), einsum_dense(graph, cores).reshape(64, 64))
