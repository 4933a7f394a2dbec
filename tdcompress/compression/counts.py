"""What a model's layers hold and cost: counts as plain data, and the table that a person reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..layers.base import Factorised
from ..layers.conv import FactorisedConv2d
from ..layers.kinds import dense_macs, weight_shape
from .plans import path_macs
from .trace import Inputs, input_shapes


def count(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """Counts of a whole network and of each convolution and linear layer, for one input of ``input_shape``.

    ``parameters`` and ``dense_parameters`` count every parameter (biases and norms too), ``macs`` and
    ``dense_macs`` are multiply-accumulates per image of the convolution and linear layers, of every call of them.
    """
    layers = [
        _layer(name, model.get_submodule(name), inputs) for name, inputs in input_shapes(model, input_shape).items()
    ]
    parameters = sum(p.numel() for p in model.parameters())
    dense = parameters + sum(layer["dense_parameters"] - layer["parameters"] for layer in layers)
    return {
        "parameters": parameters,
        "dense_parameters": dense,
        "compression_ratio": dense / parameters,
        "macs": sum(layer["macs"] for layer in layers),
        "dense_macs": sum(layer["dense_macs"] for layer in layers),
        "layers": layers,
    }


def _layer(name: str, layer: nn.Module, inputs: Inputs) -> dict[str, Any]:
    dense_shape = weight_shape(layer)
    dense = dense_macs(layer, inputs)
    entry: dict[str, Any] = {
        "name": name,
        "kind": "convolution" if len(dense_shape) > 2 else "linear",
        "shape": list(dense_shape),
        "format": "dense",
        "cores": {"weight": list(dense_shape)},
        "ranks": {},
        "parameters": math.prod(dense_shape),
        "dense_parameters": math.prod(dense_shape),
        "macs": dense,
        "dense_macs": dense,
        "plan": "dense",
    }
    if isinstance(layer, Factorised):
        graph = layer.graph
        reconstructs = isinstance(layer, FactorisedConv2d) and layer.groups > 1
        entry |= {
            "format": layer.format,
            "cores": {core.name: list(graph.shape(core)) for core in graph.cores},
            "ranks": graph.ranks,
            "parameters": graph.parameters,
            "macs": dense if reconstructs else path_macs(graph, layer.plan.path, layer, inputs),
            "plan": "reconstruct" if reconstructs else layer.plan.text,
        }
    return entry
