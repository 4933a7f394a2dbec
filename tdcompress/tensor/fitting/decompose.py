"""Cores that fit a given dense weight, for any graph."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..contraction.plan import merge_all
from ..graph import Graph
from .als import alternate, balanced
from .truncation import truncate


def decompose(graph: Graph, weight: Tensor, sweeps: int = 100, seed: int = 0) -> list[Tensor]:
    """Cores, in the graph's order and shapes and the weight's dtype, that fit ``weight`` in the Frobenius norm.

    ``weight``: float32 or float64, the entries over ``graph.modes`` in their order, in any shape. Graphs without cycles
    and hyperedges are truncated from the leaves to the root and refined by two-site updates, the others fitted by
    alternating least squares from a random start (``seed``); at most ``sweeps`` sweeps, fewer once they stop helping.
    Nothing larger than a few times the weight is formed. The scale is shared evenly over the cores.

    Raises ``ValueError`` where the weight is not finite.
    """
    weight = weight.detach().reshape([graph.sizes[mode] for mode in graph.modes])
    norm = weight.double().norm()
    if not norm.isfinite():
        raise ValueError("the weight holds numbers that are not finite")
    if norm == 0:
        return [weight.new_zeros(graph.shape(core)) for core in graph.cores]
    fit = truncate if graph.is_tree else alternate
    share = norm ** (1 / len(graph.cores))
    cores = fit(graph, weight / norm.to(weight.dtype), sweeps, seed)
    return [(core * share).to(weight.dtype) for core in balanced(graph, cores)]


def relative_error(graph: Graph, cores: Sequence[Tensor], weight: Tensor) -> float:
    """||W - What|| / ||W||, in double precision; zero where both are zero, infinite where only the weight is."""
    weight = weight.detach().double().flatten()
    error = (merge_all(graph, [core.detach().double() for core in cores]).flatten() - weight).norm()
    return float(error / weight.norm()) if error > 0 else 0.0
