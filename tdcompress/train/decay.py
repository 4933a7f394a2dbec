"""Weight decay of factorised layers: on the cores, in proportion to their size, or on the weight they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.kinds import dense_weights, factorised, weights_once
from ..tensor.norm import squared_norm


def parameter_groups(
    model: nn.Module, decay: str, weight_decay: float, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The model's parameters as an optimizer takes them, the cores with a weight decay of their own.

    ``names``: the layers that hold cores, or will once they are switched, by default those that do. One that is dense
    decays as any other; there are as many groups before a switch as after it.

    ``decay``: ``factors`` decays each core as any other parameter; ``scaled`` times a layer's parameters / dense
    parameters (Gray et al. 2019, section 4: fewer parameters need less of it); ``frobenius`` leaves the cores to
    ``frobenius_penalty``.
    """
    if decay == "factors" or not weight_decay:
        return [{"params": list(model.parameters())}]
    held, dense = factorised(model), dense_weights(model)
    apart: list[tuple[list[nn.Parameter], float]] = []
    if decay == "scaled":
        for name in held if names is None else names:
            layer = held.get(name)
            share = layer.graph.parameters / layer.graph.dense_parameters if layer else 1.0
            parameters = layer.tensors() if layer else [dense[name]]
            if not any(parameters[0] is others[0] for others, _ in apart):  # of layers that are tied to one before
                apart.append((parameters, share))
    else:
        apart = [([core for layer in weights_once(model).values() for core in layer.tensors()], 0.0)]
    seen = {parameter for parameters, _ in apart for parameter in parameters}
    others = [parameter for parameter in model.parameters() if parameter not in seen]
    return [
        {"params": parameters, "weight_decay": weight_decay * share} for parameters, share in [(others, 1.0), *apart]
    ]


def frobenius_penalty(model: nn.Module, weight_decay: float) -> Tensor:
    """``weight_decay / 2`` times the sum of ||W||^2 over the factorised layers, W never formed.

    Its gradient with respect to W is what weight decay adds to that of a dense layer (Khodak et al. 2021, section 3).
    """
    layers = weights_once(model).values()
    norms = [squared_norm(layer.graph, layer.tensors()) for layer in layers]
    return torch.stack(norms).sum() * (weight_decay / 2)
