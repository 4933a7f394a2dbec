"""From full rank to cores in the midst of a training: the network and what its optimizer keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config.schema import MethodConfig
from ..layers.base import Factorised
from ..layers.kinds import kind_of, weights_once
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
    **settings: Any,
) -> M:
    """``compress`` a model in training: its weights are fitted, and the cores take their place in ``optimizer``.

    ``settings``: the further arguments of ``compress``, with ``init="rough"`` by default. The cores of a layer are in
    the group of the optimizer that its dense weight was in, so they have the same learning rate and decay, and
    schedulers go on; what the optimizer has gathered of a dense weight is forgotten. Returns what ``compress`` returns.

    Raises ``ConfigError`` as ``compress`` does, and for an optimizer that cannot be told.
    """
    refuse(optimizer)
    weights = dense_weights(model)
    model = compress(model, method, rank, input_shape, **{"init": "rough", **settings})
    hand_over(optimizer, weights, model)
    return model


def refuse(optimizer: Optimizer) -> None:
    """Raise ``ConfigError`` for an optimizer whose parameters cannot be replaced."""
    if hasattr(optimizer, "_params"):  # LBFGS
        raise ConfigError(
            f"{type(optimizer).__name__} keeps its parameters in one vector, of which none can be replaced"
        )


def dense_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that can be held as cores, by the name of their layer."""
    kinds = {name: (layer, kind_of(layer)) for name, layer in model.named_modules()}
    found = {name: kind.weight(layer) for name, (layer, kind) in kinds.items() if kind is not None}
    return {name: weight for name, weight in found.items() if isinstance(weight, nn.Parameter)}


def hand_over(optimizer: Optimizer, weights: Mapping[str, nn.Parameter], model: nn.Module) -> None:
    """Give ``optimizer`` the cores of ``model`` in place of the dense ``weights``, which its layers had before."""
    layers = {weights[name]: (name, layer) for name, layer in weights_once(model).items() if name in weights}
    for group in optimizer.param_groups:
        named = list(zip(group["params"], group.get("param_names", group["params"]), strict=True))
        group["params"] = [new for old, _ in named for new in (layers[old][1].tensors() if old in layers else [old])]
        if "param_names" in group:
            group["param_names"] = [new for old, said in named for new in _names(*layers.get(old, (said, None)))]
    for weight, (_, layer) in layers.items():
        state = optimizer.state.pop(weight, {})
        if isinstance(state.get(_MOMENTUM), Tensor):  # fused, SGD wants one for every parameter or for none
            for core in layer.tensors():
                optimizer.state[core][_MOMENTUM] = torch.zeros_like(core)


def _names(name: str, layer: Factorised | None) -> list[str]:
    return [name] if layer is None else [f"{name}.cores.{core.name}" for core in layer.graph.cores]
