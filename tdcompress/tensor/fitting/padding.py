"""Cores of smaller ranks held at larger ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graph import Graph


def padded(graph: Graph, cores: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """The network of ``cores``, whose bonds are no larger than those of ``graph``, in the graph's shapes: the same W.

    A bond's new slices are zero on the first core that carries it and Gaussian, of the core's mean square, on the
    others. Were they zero on all of them, neither a gradient nor a least squares solution would ever fill them.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for k, (core, value) in enumerate(zip(graph.cores, cores, strict=True)):
        scale = value.square().mean().sqrt()
        for axis, index in enumerate(core.indices):
            missing = list(value.shape)
            missing[axis] = graph.sizes[index] - value.shape[axis]
            if missing[axis]:
                drawn = torch.randn(missing, generator=generator, dtype=value.dtype, device="cpu").to(value.device)
                value = torch.cat([value, drawn * (0 if graph.carriers[index][0] == k else scale)], axis)
        found.append(value)
    return found
