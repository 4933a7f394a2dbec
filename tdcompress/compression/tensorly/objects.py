"""Cores as tensorly's own objects, and cores of such objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy
import tensorly
import torch
from tensorly.cp_tensor import CPTensor
from tensorly.tr_tensor import TRTensor
from tensorly.tt_tensor import TTTensor
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor

from ...tensor.contraction.plan import merge_all
from ...tensor.errors import ConfigError
from ...tensor.fitting.als import balanced
from ...tensor.formats import FORMATS, Format
from ...tensor.graph import Graph
from ...tensor.weight import checked, over_modes
from .arrays import Reading, class_of, reading

Arrays = list[Tensor]

_MADE: dict[str, Callable[[Arrays], Any]] = {
    "CPTensor": lambda arrays: CPTensor((None, arrays)),
    "TuckerTensor": lambda arrays: TuckerTensor((arrays[0], arrays[1:])),
    "TTTensor": TTTensor,
    "TRTensor": TRTensor,
}
"""From the arrays of ``arrays.Reading`` to the object of each class."""

_TAKEN: dict[type, Callable[[Any], Sequence[Any]]] = {
    CPTensor: lambda found: [*found.factors, found.weights],
    TuckerTensor: lambda found: [found.core, *found.factors],
    TTTensor: lambda found: found.factors,
    TRTensor: lambda found: found.factors,
}
"""The same the other way round, the weights of CP behind its factors."""


def to_tensorly(graph: Graph, format: Format, cores: Sequence[Tensor]) -> Any:
    """The object of tensorly that stands for the weight of these cores, its arrays copies of them as torch tensors.

    Raises ``ConfigError`` where tensorly has no such network.
    """
    found = reading(graph, format)
    arrays = [array.clone() for array in found.arrays_of([core.detach() for core in cores])]
    with tensorly.backend_context("pytorch"):
        return _MADE[class_of(format)](arrays)


def from_tensorly(graph: Graph, format: Format, found: Any, weight: Tensor) -> tuple[Graph, list[Tensor]]:
    """The cores that an object of tensorly holds, its scale shared evenly over them, and the graph at its ranks.

    In double precision, on the CPU. ``graph``: at any ranks; ``found``: its arrays are torch's or numpy's; ``weight``:
    the layer's dense one. Raises ``ConfigError`` for an object of another class than the format's, of another shape or
    of other arrays, and for one that fits the weight if its dimensions are taken to be in another order.
    """
    read = reading(graph, format)
    name = type(found).__name__
    if type(found) not in _TAKEN or name != class_of(format):
        raise ConfigError(f"cores: a {name}, for {format.name} it must be tensorly's {class_of(format)}")
    if tuple(found.shape) != read.shape:
        raise ConfigError(
            f"cores: the {name} is of shape {tuple(found.shape)}, these cores' dimensions are ({read.said}): layout, "
            "kernel and factors choose them"
        )
    graph, cores = cores_in(read, found)
    _refuse_other_order(read, graph, cores, weight)
    return graph, cores


def _refuse_other_order(read: Reading, graph: Graph, cores: Sequence[Tensor], weight: Tensor) -> None:
    """Raise ``ConfigError`` for a fit of the weight over its modes in their own order, where the cores' is another."""
    order = sorted(read.dimensions, key=lambda group: graph.modes.index(group[0]))
    usual = replace(read, dimensions=tuple(order))
    if usual.dimensions == read.dimensions or usual.shape != read.shape:
        return
    values, merged = over_modes(graph, weight.double().cpu()), read.tensor(merge_all(graph, cores))
    here, there = (float((one.tensor(values) - merged).norm()) for one in (read, usual))
    if there < 0.9 * here:  # those of another weight fit neither way
        raise ConfigError(f"cores: its dimensions fit the weight as ({usual.said}), they must be ({read.said})")


def cores_in(read: Reading, found: Any) -> tuple[Graph, list[Tensor]]:
    """``from_tensorly`` of an object of the right class and shape."""
    arrays = [_tensor(array) for array in _TAKEN[type(found)](found)]
    if isinstance(found, CPTensor):
        *arrays, weights = arrays
        arrays[0] = arrays[0] * weights
    graph, cores = read.cores_of(arrays)
    return graph, balanced(graph, cores)


def format_of(found: Any) -> Format:
    """The format whose networks this object's class holds. Raises ``ConfigError`` for any other object."""
    name = type(found).__name__ if type(found) in _TAKEN else None
    for format in FORMATS.values():
        if name is not None and format.tensorly == name:
            return format
    raise ConfigError(f"a {type(found).__name__} is none of tensorly's {', '.join(_MADE)}")


def _tensor(array: Any) -> Tensor:
    if isinstance(array, numpy.ndarray):
        array = torch.from_numpy(array.copy())
    if not isinstance(array, Tensor):
        raise ConfigError(f"its arrays are {type(array).__module__}'s, they must be torch's or numpy's")
    return checked(array).detach().double().cpu()
