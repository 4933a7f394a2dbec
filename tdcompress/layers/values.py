"""Values of a layer's parameters: those that it is given, and those that it is drawn anew with."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ..tensor.fitting.initial import FITTED, INITS
from ..tensor.formats import find_format
from ..tensor.graph import Graph

L = TypeVar("L", bound=nn.Module)


def trainable(core: Tensor) -> Tensor:
    """The same, or a copy of what inference mode made, which no gradient would ever reach."""
    with torch.inference_mode(False):
        return nn.Parameter(core.clone(), core.requires_grad) if core.is_inference() else core


def holding(module: L, weight: Tensor, bias: Tensor | None) -> L:
    """``module``, in place, with copies of this weight and of this bias, which lie in one piece."""
    module.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    module.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    return module


def drawn(format: str, graph: Graph, weight: Tensor) -> list[Tensor]:
    """Cores as a format begins with them from scratch, for a dense ``weight`` of random entries in any order."""
    init = find_format(format).init
    options = {"seed": int(torch.randint(2**31, (), device="cpu"))} if init in FITTED else {}
    return INITS[init](graph, weight.detach().cpu().reshape(graph.weight_shape), **options)
