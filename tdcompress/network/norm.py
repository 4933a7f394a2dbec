"""Norms of the reconstructed weight, from the cores, without forming it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .graph import Core, Graph
from .path import greedy_tree
from .plan import merge_all


def squared_norm(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """||W||^2 as a scalar tensor, differentiable: the network contracted with a copy of itself over all modes."""
    copies = tuple(
        Core(f"{core.name}'", tuple(i if i in graph.modes else f"{i}'" for i in core.indices)) for core in graph.cores
    )
    sizes = {**graph.sizes, **{f"{bond}'": size for bond, size in graph.ranks.items()}}
    doubled = Graph(graph.cores + copies, (), sizes)
    return merge_all(doubled, [*cores, *cores], greedy_tree(doubled))
