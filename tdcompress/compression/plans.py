"""How a model's factorised layers contract: as the planner sees it, and as plain data to keep."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ..layers.base import Factorised
from ..layers.conv import FactorisedConv2d
from ..tensor.contraction.path import Geometry, Path
from ..tensor.contraction.search import macs
from ..tensor.graph import Graph
from .trace import Inputs


def layer_geometry(layer: Factorised, input_shape: tuple[int, ...], batch_size: int) -> Geometry:
    """What the planner sees of a layer whose input for one image has this shape."""
    if isinstance(layer, FactorisedConv2d):
        return layer.geometry(batch_size, *input_shape[-2:])
    rows = 1
    for size in input_shape[1:-1]:
        rows *= size
    return Geometry(batch_size * rows)


def path_macs(graph: Graph, path: Path, layer: Factorised, inputs: Inputs) -> int:
    """Multiply-accumulates per image of a layer's weight, held as ``graph`` and contracted along ``path``."""
    return sum(calls * macs(graph, path, layer_geometry(layer, shape, 1)) for shape, calls in inputs.items())


def plans(model: nn.Module) -> dict[str, Any]:
    """The path of each factorised layer as plain data, by the layer's name."""
    return {name: layer.plan.path.plain() for name, layer in model.named_modules() if isinstance(layer, Factorised)}


def use_plans(model: nn.Module, saved: dict[str, Any]) -> None:
    """Contract along the paths that ``plans`` gave for an equal model."""
    for name, path in saved.items():
        cast(Factorised, model.get_submodule(name)).use(Path.from_plain(path))
