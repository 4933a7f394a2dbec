"""Weight decay of factorised layers: on the cores, in proportion to their size, or on the weight they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..layers.kinds import factorised
from ..tensor.norm import squared_norm


def parameter_groups(model: nn.Module, decay: str, weight_decay: float) -> list[dict[str, Any]]:
    """The model's parameters as an optimizer takes them, the cores with a weight decay of their own.

    ``decay``: ``factors`` decays each core as any other parameter; ``scaled`` times a layer's parameters / dense
    parameters (Gray et al. 2019, section 4: fewer parameters need less of it); ``frobenius`` leaves the cores to
    ``frobenius_penalty``.
    """
    if decay == "factors" or not weight_decay:
        return [{"params": list(model.parameters())}]
    groups: dict[float, list[nn.Parameter]] = {weight_decay: []}
    seen: set[nn.Parameter] = set()
    for layer in factorised(model).values():
        share = layer.graph.parameters / layer.graph.dense_parameters if decay == "scaled" else 0.0
        groups.setdefault(weight_decay * share, []).extend(layer.tensors())
        seen.update(layer.tensors())
    groups[weight_decay] += [parameter for parameter in model.parameters() if parameter not in seen]
    return [{"params": params, "weight_decay": value} for value, params in groups.items() if params]


def frobenius_penalty(model: nn.Module, weight_decay: float) -> Tensor:
    """``weight_decay / 2`` times the sum of ||W||^2 over the factorised layers, W never formed.

    Its gradient with respect to W is what weight decay adds to that of a dense layer (Khodak et al. 2021, section 3).
    """
    layers = factorised(model).values()
    norms = [squared_norm(layer.graph, layer.tensors()) for layer in layers]
    return torch.stack(norms).sum() * (weight_decay / 2)
