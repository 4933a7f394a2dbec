"""From full rank to cores in the midst of a training: the network and what its optimizer keeps of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config.schema import MethodConfig
from ..layers.base import Factorised
from ..layers.kinds import dense_weights, factorised
from ..layers.parted.attention import cut_into
from ..tensor.errors import ConfigError
from ..tensor.rank import RankLike
from .survey.attributes import all_or_nothing
from .swap import compress

M = TypeVar("M", bound=nn.Module)
_MOMENTUM = "momentum_buffer"  # of torch.optim.SGD and its like


def switch(
    model: M,
    optimizer: Optimizer,
    method: str | MethodConfig,
    rank: RankLike,
    input_shape: Sequence[int] | None = None,
    **settings: Any,
) -> M:
    """``compress`` a model in training: its weights are fitted, and the cores take their place in ``optimizer``.

    ``settings``: the further arguments of ``compress``, with ``init="rough"`` by default. The cores of a layer are in
    the group of the optimizer that its dense weight was in, so they have the same learning rate and decay, and
    schedulers go on; what the optimizer has gathered of a dense weight is forgotten. The model's parameters in a group
    come in the model's order: an optimizer of a model that was saved and loaded takes this one's state. Returns what
    ``compress`` returns.

    Raises ``ConfigError`` as ``compress`` does, for an optimizer that cannot be told, and for one that has not all the
    weights that are trained and swapped. Model and optimizer are then what they were.
    """
    refuse(optimizer)
    weights = dense_weights(model)
    with all_or_nothing(model):
        new = compress(model, method, rank, input_shape, **{"init": "rough", **settings})
        hand_over(optimizer, weights, new)
    return new


def refuse(optimizer: Optimizer) -> None:
    """Raise ``ConfigError`` for what is no optimizer, and for one whose parameters cannot be replaced."""
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"a {type(optimizer).__name__} is no torch.optim.Optimizer")
    if hasattr(optimizer, "_params"):  # LBFGS
        raise ConfigError(
            f"{type(optimizer).__name__} keeps its parameters in one vector, of which none can be replaced"
        )
    known = set(map(id, optimizer.param_groups))
    within = [value for value in vars(optimizer).values() if isinstance(value, Optimizer)]
    if any(id(group) not in known for one in within for group in one.param_groups):
        raise ConfigError(
            f"{type(optimizer).__name__} steps by an optimizer within it, which would keep the dense weights: switch "
            "before it is made, or make it anew of what compress gives"
        )


def hand_over(optimizer: Optimizer, weights: Mapping[str, nn.Parameter], model: nn.Module) -> None:
    """Give ``optimizer`` the cores of ``model`` in place of the dense ``weights``, which its layers had before."""
    held = factorised(model)
    heirs: dict[nn.Parameter, dict[str, nn.Parameter]] = {}
    for name, weight in weights.items():
        names = cut_into(model, name)
        found = _heirs(names, model, held)
        if found and (names != [name] or name in held):
            heirs.setdefault(weight, found)  # that several layers have may have several names
    known = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    unknown = heirs.keys() - known
    lost = [name for name, weight in weights.items() if weight in unknown and weight.requires_grad]
    if lost:
        raise ConfigError(f"the optimizer has not the weight of {', '.join(lost)}, whose cores nothing would train")
    odd = next((name for found in heirs.values() for name, core in found.items() if core.dim() != 2), None)
    if odd is not None and type(optimizer) is getattr(torch.optim, "Muon", None):
        raise ConfigError(
            f"torch.optim.Muon takes matrices only, and {odd} is none: tdcompress.train.optim.muon.Muon unfolds cores"
        )
    order = {parameter: place for place, parameter in enumerate(model.parameters())}
    groups: list[dict[str, list[Any]]] = []
    for group in optimizer.param_groups:
        named = list(zip(group.get("param_names", group["params"]), group["params"], strict=True))
        new = [pair for said, old in named for pair in (heirs[old].items() if old in heirs else [(said, old)])]
        ours = iter(sorted((pair for pair in new if pair[1] in order), key=lambda pair: order[pair[1]]))
        new = [next(ours) if parameter in order else (said, parameter) for said, parameter in new]
        groups.append({"params": [parameter for _, parameter in new]})
        if "param_names" in group:
            groups[-1]["param_names"] = [said for said, _ in new]
    for group, renewed in zip(optimizer.param_groups, groups, strict=True):
        group.update(renewed)
    for weight, found in heirs.items():
        begin_anew(optimizer, weight, found.values())


def begin_anew(optimizer: Optimizer, old: nn.Parameter, new: Iterable[nn.Parameter]) -> None:
    """Forget what ``optimizer`` has of ``old``: the parameters in its place, perhaps itself, come to their first step.

    Fused, SGD wants a momentum for every parameter or for none; others take a state for complete that holds anything.
    """
    state = optimizer.state.pop(old, {})
    if isinstance(state.get(_MOMENTUM), Tensor) and len(state) == 1:
        for parameter in new:
            optimizer.state[parameter] = {_MOMENTUM: torch.zeros_like(parameter)}


def _heirs(names: Sequence[str], model: nn.Module, held: Mapping[str, Factorised]) -> dict[str, nn.Parameter]:
    """The parameters, by name, of the layers of these ``names``, be they held as cores or dense."""
    found: dict[str, nn.Parameter] = {}
    for name in names:
        if name in held:
            found |= {f"{name}.cores.{core}": value for core, value in held[name].cores.items()}
        else:
            found[f"{name}.weight"] = cast("nn.Parameter", model.get_submodule(name).weight)
    return found
