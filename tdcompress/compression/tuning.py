"""Plans by measurement: each layer's candidate paths timed on a real batch, the fastest kept."""

from __future__ import annotations

import statistics
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from ..device.clock import seconds
from ..layers.base import Factorised
from ..layers.kinds import factorised
from ..tensor.contraction.path import Path
from .trace import layer_inputs

ROUNDS = 5
_MARGIN = 0.97  # another path must be this much faster than the model's choice: less is noise


def tunable(model: nn.Module) -> dict[str, Factorised]:
    """The layers with a choice of paths, by name: those made with ``plan="measure"``."""
    return {name: layer for name, layer in factorised(model).items() if len(layer.candidates) > 1}


def tune(model: nn.Module, batch: Tensor, context: AbstractContextManager[object] | None = None) -> None:
    """Let every tunable layer of ``model`` contract along the fastest of its candidates, forward and backward.

    ``batch``: inputs of the model as in training; ``context``: under which it runs, such as autocast.
    """
    with context or nullcontext():
        layers = tunable(model)
        for name, x in layer_inputs(model, layers, batch).items():
            layers[name].use(_fastest(layers[name], x))


def _fastest(layer: Factorised, x: Tensor) -> Path:
    """The candidate with the smallest median time, all of them timed in turn."""
    times: dict[Path, list[float]] = {path: [] for path in layer.candidates}
    for _ in range(1 + ROUNDS):
        for path in layer.candidates:
            layer.use(path)
            times[path].append(seconds(partial(_step, layer, x.requires_grad_()), x.device))
    medians = {path: statistics.median(rounds[1:]) for path, rounds in times.items()}  # the first chose the kernels
    best = min(medians, key=medians.__getitem__)
    first = layer.candidates[0]
    return best if medians[best] < _MARGIN * medians[first] else first


def _step(layer: Factorised, x: Tensor) -> None:
    output = layer(x)
    torch.autograd.grad(output, [x, *layer.parameters()], torch.ones_like(output))
