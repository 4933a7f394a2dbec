"""Signs that factors go astray: components that grow while they cancel one another."""

from __future__ import annotations

import math

import torch
from torch import nn

from .layers import Factorised
from .network.norm import component_norms, squared_norm


def degeneracy(model: nn.Module) -> float:
    """The largest norm of one component over ||W||, of all layers whose weight is a sum along a hyperedge, else NaN.

    At most about 1 while components add up; a degenerate sum, whose components cancel, has no bound (Lim and Comon
    2009, section 1; Phan et al. 2020, section 3).
    """
    largest = math.nan
    with torch.no_grad():
        for layer in (module for module in model.modules() if isinstance(module, Factorised)):
            whole = squared_norm(layer.graph, layer.tensors())
            for bond, carriers in layer.graph.carriers.items():
                if len(carriers) > 2:
                    share = component_norms(layer.graph, layer.tensors(), bond).max() / whole
                    largest = max(share.sqrt().item(), 0.0 if math.isnan(largest) else largest)
    return largest
