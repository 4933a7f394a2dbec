"""Initial cores: the reconstructed weight starts with the variance of its dense twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .graph import Core, Graph
from .norm import squared_norm


def variance_law(graph: Graph, variance: float, generator: torch.Generator | None = None) -> list[Tensor]:
    """Gaussian cores whose reconstruction W has ``mean(W^2) = variance``.

    Entries of W are sums of products of independent zero-mean entries, so Var(W) = prod(bond sizes) * prod(core
    variances); every core gets the same share. What a single draw misses of it (much, at low rank) is corrected
    exactly by one factor on all cores, from the norm of the network.
    """
    cores = [torch.randn(graph.shape(core), generator=generator, dtype=torch.float64) for core in graph.cores]
    return _scaled(graph, cores, variance)


def orthogonal(graph: Graph, variance: float, generator: torch.Generator | None = None) -> list[Tensor]:
    """Cores of the same variance, each a semi-orthogonal matrix towards the next core on the way to the root.

    Products of Gaussian matrices are badly conditioned, the more so the more cores there are; products of
    semi-orthogonal ones are not (Saxe et al. 2014, section 4), and each core's entries keep the mean square that
    ``variance_law`` gives them. The root, the core with the most bonds, is unfolded along its longest index.
    """
    towards = _to_root(graph)
    cores = []
    for core in graph.cores:
        columns = [index for index in core.indices if index in towards[core.name]]
        rows = [index for index in core.indices if index not in columns]
        order = [core.indices.index(index) for index in (*rows, *columns)]
        shape = [graph.sizes[index] for index in (*rows, *columns)]
        height, width = math.prod(shape[: len(rows)]), math.prod(shape[len(rows) :])
        drawn = torch.randn(max(height, width), min(height, width), generator=generator, dtype=torch.float64)
        matrix = torch.linalg.qr(drawn)[0] * math.sqrt(len(drawn))
        matrix = matrix if height >= width else matrix.T
        cores.append(matrix.reshape(shape).permute([order.index(k) for k in range(len(order))]).contiguous())
    return _scaled(graph, cores, variance)


INITS: dict[str, Callable[[Graph, float], list[Tensor]]] = {"variance": variance_law, "orthogonal": orthogonal}


def _scaled(graph: Graph, cores: Sequence[Tensor], variance: float) -> list[Tensor]:
    """Cores times one factor, so that the mean square of their reconstruction is ``variance``."""
    drawn = float(squared_norm(graph, cores)) / graph.dense_parameters
    return [(core * (variance / drawn) ** (0.5 / len(cores))).float() for core in cores]


def _to_root(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each core the indices that it shares with the next core on a shortest way to the root."""

    def bonds(core: Core) -> list[str]:
        return [index for index in core.indices if index not in graph.modes]

    root = max(graph.cores, key=lambda core: len(bonds(core)))
    towards = {root.name: (max(root.indices, key=lambda index: graph.sizes[index]),)}
    border = [root]
    for core in border:
        for other in graph.cores:
            shared = tuple(index for index in bonds(other) if index in core.indices)
            if shared and other.name not in towards:
                towards[other.name] = shared
                border.append(other)
    return towards
