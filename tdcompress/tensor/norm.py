"""Norms of the reconstructed weight, from the cores, without forming it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from .contraction.cost import Rates
from .contraction.plan import Contraction, compile_tree
from .contraction.search import greedy_tree
from .graph import Core, Graph

RATES = Rates()


def squared_norm(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """||W||^2 as a scalar tensor, differentiable.

    The network contracted with a copy of itself over all modes, which forms nothing of W's size at low rank; or the
    squares of W summed, where the cost model finds that cheaper (close to full rank). Planned once for each graph.
    """
    if _reconstructs(graph):
        return _cheapest(graph)(cores).square().sum()
    return _doubled(graph)([*cores, *cores])


def component_norms(graph: Graph, cores: Sequence[Tensor], bond: str) -> Tensor:
    """||W_r||^2 of the components that W is the sum of along ``bond``, one for each of its values."""
    return _doubled(graph, (bond,))([*cores, *cores])


@lru_cache(maxsize=4096)
def _reconstructs(graph: Graph) -> bool:
    """Whether W and the sum of its squares cost less than the network with its copy."""
    square = RATES.contraction(1, graph.dense_parameters, 1, 1, 1, (graph.dense_parameters, 0, 1))
    return _cheapest(graph).seconds(RATES) + square < _doubled(graph).seconds(RATES)


@lru_cache(maxsize=4096)
def _doubled(graph: Graph, held: tuple[str, ...] = ()) -> Contraction:
    """The network with a copy of itself that shares its modes and the bonds ``held``, which stay open."""
    shared = (*graph.modes, *held)
    copies = tuple(
        Core(f"{core.name}'", tuple(i if i in shared else f"{i}'" for i in core.indices)) for core in graph.cores
    )
    sizes = {**graph.sizes, **{f"{bond}'": size for bond, size in graph.ranks.items()}}
    return _cheapest(Graph(graph.cores + copies, held, sizes))


@lru_cache(maxsize=4096)
def _cheapest(graph: Graph) -> Contraction:
    """The cheaper of the two greedy orders."""
    orders = [compile_tree(graph, greedy_tree(graph, by_macs)) for by_macs in (False, True)]
    return min(orders, key=lambda order: order.seconds(RATES))
