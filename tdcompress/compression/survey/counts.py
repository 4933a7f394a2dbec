"""What a model's layers hold and cost, as plain data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.base import Factorised
from ...layers.kinds import kind_by_class, parted_by, why_not
from ...layers.parted.base import Parted
from ...tensor.weight import memory
from .inputs import Examples
from .plans import dense_macs, layer_macs
from .trace import Trace, trace

_NEVER_CALLED = "its weight is used without calling it"
_MISSED = "the inputs do not reach it"


def count(model: nn.Module, input_shape: Sequence[int] | None = None, *, example_inputs: Any = None) -> dict[str, Any]:
    """Counts of a whole network and of each layer that has a weight, for one input.

    ``input_shape``: that of one input without the batch dimension; or ``example_inputs``, as ``compress`` has them, and
    then of a pass of those. ``parameters`` and ``dense_parameters`` count every parameter (biases
    and norms too), one that several layers share once; ``macs`` and ``dense_macs`` are the multiply-accumulates per
    input of activations with weights, of every call of every layer; ``activation_macs`` are those of activations with
    one another, as in attention, which no compression changes. ``layers``: a dictionary each, in the order in which a
    forward pass reaches them, and last those that it does not. Their ``plan`` says how they contract, ``put_together``
    whether their cores are merged to the whole weight for it, ``reason`` why a weight is dense.
    """
    return counted_from(model, trace(model, Examples.of(model, input_shape, example_inputs)))


def counted_from(model: nn.Module, seen: Trace) -> dict[str, Any]:
    """``count`` of a model that was traced, perhaps before layers were swapped or ranks cut."""
    counted = set[int]()
    layers = [_layer(name, model.get_submodule(name), seen, counted) for name in (*seen.reached, *seen.missed)]
    parameters = distinct(model.parameters())
    dense = parameters + sum(layer["dense_parameters"] - layer["parameters"] for layer in layers)
    return {
        "parameters": parameters,
        "dense_parameters": dense,
        "compression_ratio": dense / parameters if parameters else 1.0,
        "macs": sum(layer["macs"] for layer in layers),
        "dense_macs": sum(layer["dense_macs"] for layer in layers),
        "activation_macs": seen.between,
        "layers": layers,
    }


def distinct(parameters: Iterable[Tensor], counted: set[int] | None = None) -> int:
    """Entries of these parameters, memory that several share once.

    Memory in ``counted`` is left out; afterwards all of it is in there.
    """
    counted, found = set() if counted is None else counted, dict[int, int]()
    size: dict[int, int] = {}
    for parameter in {id(parameter): parameter for parameter in parameters}.values():
        where, entries = memory(parameter), parameter.numel()
        if where not in counted:
            found[where] = found.get(where, 0) + entries
            strided = parameter.layout == torch.strided
            size[where] = parameter.untyped_storage().nbytes() // parameter.element_size() if strided else entries
    counted.update(found)
    return sum(min(entries, size[storage]) for storage, entries in found.items())


def _layer(name: str, layer: nn.Module, seen: Trace, counted: set[int]) -> dict[str, Any]:
    if isinstance(layer, Factorised):
        return _factorised(name, layer, seen, counted)
    by_class = kind_by_class(layer)
    # A parametrised layer keeps its parameters below it.
    parameters = layer.named_parameters(recurse=by_class is not None)
    weights = {key: value for key, value in parameters if value.dim() > 1}
    entries, macs = distinct(weights.values(), counted), seen.macs.get(name, 0)
    return {
        "name": name,
        "kind": by_class.name if by_class else type(layer).__name__,
        "shape": list(next(iter(weights.values())).shape) if weights else [],
        "format": "dense",
        "layout": "",
        "cores": {key: list(value.shape) for key, value in weights.items()},
        "ranks": {},
        "parameters": entries,
        "dense_parameters": entries,
        "macs": macs,
        "dense_macs": macs,
        "plan": "dense",
        "put_together": False,
        "reason": why_dense(name, layer, seen),
    }


def why_dense(name: str, layer: nn.Module, seen: Trace) -> str | None:
    """Why a layer is dense, None where nobody wanted anything else."""
    if name in seen.missed:
        return _MISSED
    if isinstance(layer, Parted):
        return "its weights are layers of their own"  # what it has beside them
    called = name in seen.inputs or parted_by(layer) is not None
    reason: str | None = why_not(layer) or getattr(layer, "left_dense", None if called else _NEVER_CALLED)
    return reason


def _factorised(name: str, layer: Factorised, seen: Trace, counted: set[int]) -> dict[str, Any]:
    graph, inputs, entries = layer.graph, seen.inputs.get(name, Counter()), distinct(layer.tensors(), counted)
    read = name in seen.reads and not sum(inputs.values())
    merged = len(graph.cores) > 1 and len(layer.plan.path.terms) == 1 and not layer.lookup
    return {
        "name": name,
        "kind": "convolution" if layer.spatial else "embedding" if layer.lookup else "linear",
        "shape": list(layer.weight_shape),
        "format": layer.format,
        "layout": layer.layout,
        "cores": {core.name: list(graph.shape(core)) for core in graph.cores},
        "ranks": graph.ranks,
        "parameters": entries,
        "dense_parameters": math.prod(layer.weight_shape) if entries else 0,
        "macs": layer_macs(layer, inputs) + seen.reads.get(name, 0),
        "dense_macs": dense_macs(layer, inputs) + seen.reads.get(name, 0),
        "plan": "reconstruct" if read or layer.reconstructs else layer.plan.text,
        "put_together": read or layer.reconstructs or merged,
        "reason": None,
    }
