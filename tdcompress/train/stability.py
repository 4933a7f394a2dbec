"""Signs that factors go astray: components that grow while they cancel one another."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..layers.kinds import factorised
from ..tensor.norm import component_norms, squared_norm


def degeneracy(model: nn.Module) -> float:
    """The largest norm of one component over ||W||, of all layers whose weight is a sum along a hyperedge, else NaN.

    At most about 1 while components add up; a degenerate sum, whose components cancel, has no bound (Phan et al.
    2020, *Stable low-rank tensor decomposition for compression of CNNs*, section 3).
    """
    found = []
    with torch.no_grad():
        for layer in factorised(model).values():
            cores = [core.double() for core in layer.tensors()]  # what cancels must not cancel to rounding
            whole = squared_norm(layer.graph, cores).item()
            for bond, carriers in layer.graph.carriers.items():
                if len(carriers) > 2:
                    largest = component_norms(layer.graph, cores, bond).max().item()
                    found.append(math.sqrt(largest / whole) if whole > 0 else math.inf)
    return max(found, default=math.nan)
