"""Norms of the reconstructed weight, from the cores, without forming it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from .graph import Core, Graph
from .path import greedy_tree
from .plan import Contraction, compile_tree


def squared_norm(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """||W||^2 as a scalar tensor, differentiable: the network contracted with a copy of itself over all modes."""
    return _contraction(graph)([*cores, *cores])


@lru_cache(maxsize=4096)
def _contraction(graph: Graph) -> Contraction:
    copies = tuple(
        Core(f"{core.name}'", tuple(i if i in graph.modes else f"{i}'" for i in core.indices)) for core in graph.cores
    )
    sizes = {**graph.sizes, **{f"{bond}'": size for bond, size in graph.ranks.items()}}
    doubled = Graph(graph.cores + copies, (), sizes)
    return compile_tree(doubled, greedy_tree(doubled))
