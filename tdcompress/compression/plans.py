"""How a model's layers contract: what it costs, and as plain data to keep."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..layers.base import Factorised
from ..layers.kinds import factorised
from ..tensor.contraction.path import Path
from ..tensor.contraction.search import macs
from ..tensor.graph import Graph
from .trace import Inputs


def dense_macs(layer: Factorised, inputs: Inputs) -> int:
    """Multiply-accumulates per image of the layer whose place this one takes."""
    return math.prod(layer.weight_shape) * sum(calls * layer.positions(shape) for shape, calls in inputs.items())


def path_macs(layer: Factorised, inputs: Inputs, graph: Graph | None = None) -> int:
    """Multiply-accumulates per image of a layer along its plan, with the ranks of ``graph`` in place of its own."""
    graph = graph or layer.graph
    return sum(calls * macs(graph, layer.plan.path, layer.geometry(1, shape)) for shape, calls in inputs.items())


def plans(model: nn.Module) -> dict[str, Any]:
    """The path of each factorised layer as plain data, by the layer's name."""
    return {name: layer.plan.path.plain() for name, layer in factorised(model).items()}


def use_plans(model: nn.Module, saved: dict[str, Any]) -> None:
    """Contract along the paths that ``plans`` gave for an equal model."""
    layers = factorised(model)
    for name, path in saved.items():
        layers[name].use(Path.from_plain(path))
