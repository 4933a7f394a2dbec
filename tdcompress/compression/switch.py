"""From full rank to cores in the midst of a training: the network and what its optimizer keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config.schema import MOMENTA, MethodConfig
from ..layers.base import Factorised
from ..layers.kinds import factorised, kind_of
from ..tensor.contraction.plan import merge_all
from ..tensor.errors import ConfigError
from ..tensor.rank import RankLike
from .swap import compress

M = TypeVar("M", bound=nn.Module)
_MOMENTUM = "momentum_buffer"  # of torch.optim.SGD and its like


def switch(
    model: M,
    optimizer: Optimizer,
    method: str | MethodConfig,
    rank: RankLike,
    input_shape: Sequence[int],
    *,
    momentum: str = "drop",
    **settings: Any,
) -> M:
    """``compress`` a model in training: its weights are fitted, and the cores take their place in ``optimizer``.

    ``settings``: the further arguments of ``compress``, with ``init="rough"`` by default. The cores of a layer are in
    the group of the optimizer that its dense weight was in, so they have the same learning rate and decay, and
    schedulers go on. ``momentum``: the optimizer's state of a dense weight is forgotten ("drop"), or SGD's momentum,
    which is a sum of gradients, becomes that of the cores by the chain rule ("project"). Returns what ``compress``
    returns.

    Raises ``ConfigError`` as ``compress`` does, and for an optimizer that cannot be told.
    """
    refuse(optimizer, momentum)
    weights = dense_weights(model)
    model = compress(model, method, rank, input_shape, **{"init": "rough", **settings})
    hand_over(optimizer, weights, model, momentum)
    return model


def refuse(optimizer: Optimizer, momentum: str = "drop") -> None:
    """Raise ``ConfigError`` for an optimizer whose parameters cannot be replaced, or whose momentum not projected."""
    name = type(optimizer).__name__
    if momentum not in MOMENTA:
        raise ConfigError(f"unknown momentum '{momentum}', known: {', '.join(MOMENTA)}")
    if momentum == "project" and "momentum" not in optimizer.defaults:
        raise ConfigError(f"momentum=project is of gradients as SGD sums them, and {name} has none; use momentum=drop")
    if hasattr(optimizer, "_params"):  # LBFGS
        raise ConfigError(f"{name} keeps its parameters in one vector, of which none can be replaced")


def dense_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that can be held as cores, by the name of their layer."""
    kinds = {name: (layer, kind_of(layer)) for name, layer in model.named_modules()}
    found = {name: kind.weight(layer) for name, (layer, kind) in kinds.items() if kind is not None}
    return {name: weight for name, weight in found.items() if isinstance(weight, nn.Parameter)}


def hand_over(
    optimizer: Optimizer, weights: Mapping[str, nn.Parameter], model: nn.Module, momentum: str = "drop"
) -> None:
    """Give ``optimizer`` the cores of ``model`` in place of the dense ``weights``, which its layers had before."""
    layers = {weights[name]: (name, layer) for name, layer in factorised(model).items() if name in weights}
    for group in optimizer.param_groups:
        named = list(zip(group["params"], group.get("param_names", group["params"]), strict=True))
        group["params"] = [new for old, _ in named for new in (layers[old][1].tensors() if old in layers else [old])]
        if "param_names" in group:
            group["param_names"] = [new for old, said in named for new in _names(*layers.get(old, (said, None)))]
    for weight, (_, layer) in layers.items():
        state = optimizer.state.pop(weight, {})
        gradient = state.get(_MOMENTUM)
        if isinstance(gradient, Tensor):  # fused, SGD wants one for every parameter or for none
            gradient = gradient if momentum == "project" else torch.zeros_like(gradient)
            for core, value in zip(layer.tensors(), projected(layer, gradient), strict=True):
                optimizer.state[core][_MOMENTUM] = value


def projected(layer: Factorised, gradient: Tensor) -> list[Tensor]:
    """The gradients of a layer's cores where that of its weight is ``gradient``, in the memory order of the cores."""
    with torch.enable_grad():
        cores = [core.detach().requires_grad_() for core in layer.tensors()]
        weight = merge_all(layer.graph, cores).reshape(layer.weight_shape)
    found = torch.autograd.grad(weight, cores, gradient.to(weight))
    return [torch.empty_like(core).detach().copy_(value) for core, value in zip(cores, found, strict=True)]


def _names(name: str, layer: Factorised | None) -> list[str]:
    return [name] if layer is None else [f"{name}.cores.{core.name}" for core in layer.graph.cores]
