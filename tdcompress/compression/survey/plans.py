"""How a model's layers contract: what it costs, as plain data to keep, and the fastest way by measurement."""

from __future__ import annotations

import math
import statistics
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...device.clock import seconds
from ...layers.base import Factorised
from ...layers.kinds import factorised
from ...tensor.contraction.path import Path
from ...tensor.graph import Graph
from .inputs import Examples
from .trace import Inputs, layer_inputs

ROUNDS = 5
_MARGIN = 0.97  # another path must be this much faster than the model's choice: less is noise


def dense_macs(layer: Factorised, inputs: Inputs) -> int:
    """Multiply-accumulates per image of the layer whose place this one takes."""
    return math.prod(layer.weight_shape) * sum(calls * layer.positions(shape) for shape, calls in inputs.items())


def path_macs(layer: Factorised, inputs: Inputs, graph: Graph | None = None) -> int:
    """Multiply-accumulates per image of a layer along its plan, with the ranks of ``graph`` in place of its own."""
    return sum(calls * layer.macs(shape, graph) for shape, calls in inputs.items())


def layer_macs(layer: Factorised, inputs: Inputs) -> int:
    """Multiply-accumulates per image of a layer as it stands."""
    return dense_macs(layer, inputs) if layer.reconstructs else path_macs(layer, inputs)


def plans(model: nn.Module) -> dict[str, Any]:
    """The path of each factorised layer as plain data, by the layer's name."""
    return {name: layer.plan.path.plain() for name, layer in factorised(model).items()}


def use_plans(model: nn.Module, saved: dict[str, Any]) -> None:
    """Contract along the paths that ``plans`` gave for an equal model."""
    layers = factorised(model)
    for name, path in saved.items():
        layers[name].use(Path.from_plain(path))


def tunable(model: nn.Module) -> dict[str, Factorised]:
    """The layers with a choice of paths, by name: those made with ``plan="measure"``."""
    return {name: layer for name, layer in factorised(model).items() if len(layer.candidates) > 1}


def tune(model: nn.Module, batch: Any, context: AbstractContextManager[object] | None = None) -> None:
    """Let every tunable layer of ``model`` contract along the fastest of its candidates, forward and backward.

    ``batch``: inputs of the model as in training, as ``example_inputs`` of ``compress``; ``context``: under which it
    runs, such as autocast. Raises ``ConfigError`` for a batch that the model cannot take.
    """
    layers = tunable(model)
    examples = Examples.of(model, None, batch, called="the batch")
    with context or nullcontext(), torch.inference_mode(False), torch.enable_grad():
        for name, x in layer_inputs(model, layers, examples).items():
            layers[name].use(_fastest(layers[name], x))


def _fastest(layer: Factorised, x: Tensor) -> Path:
    """The candidate with the smallest median time, all of them timed in turn."""
    x = x.requires_grad_() if x.is_floating_point() else x
    times: dict[Path, list[float]] = {path: [] for path in layer.candidates}
    for _ in range(1 + ROUNDS):
        for path in layer.candidates:
            layer.use(path)
            times[path].append(seconds(partial(_step, layer, x), x.device))
    medians = {path: statistics.median(rounds[1:]) for path, rounds in times.items()}  # the first chose the kernels
    best = min(medians, key=medians.__getitem__)
    first = layer.candidates[0]
    return best if medians[best] < _MARGIN * medians[first] else first


def _step(layer: Factorised, x: Tensor) -> None:
    output = layer.forward(x)  # without hooks, which count calls
    learning = [x, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    torch.autograd.grad(output, learning, torch.ones_like(output))
