"""Initial cores: the reconstructed weight starts with the variance of its dense twin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .graph import Graph
from .norm import squared_norm


def variance_law(graph: Graph, variance: float, generator: torch.Generator | None = None) -> list[Tensor]:
    """Gaussian cores whose reconstruction W has ``mean(W^2) = variance``.

    Entries of W are sums of products of independent zero-mean entries, so Var(W) = prod(bond sizes) * prod(core
    variances); every core gets the same share. What a single draw misses of it (much, at low rank) is corrected
    exactly by one factor on all cores, from the norm of the network.
    """
    count = len(graph.cores)
    std = (variance / math.prod(graph.ranks.values())) ** (0.5 / count)
    cores = [torch.randn(graph.shape(core), generator=generator, dtype=torch.float64) * std for core in graph.cores]
    drawn = float(squared_norm(graph, cores)) / graph.dense_parameters
    return [(core * (variance / drawn) ** (0.5 / count)).float() for core in cores]
