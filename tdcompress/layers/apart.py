"""Layers with several weights taken apart into layers with one each, and put back where none of them became cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from .kinds import factorised, parted_by
from .parted.base import Parted

M = TypeVar("M", bound=nn.Module)


def take_apart(model: M) -> tuple[M | Parted, dict[Parted, nn.Module]]:
    """Replace, in place, the layers with several weights by what stands for them.

    Gives the model, or what takes its place if it is itself such a layer; and from what stands for a layer to it.
    """
    wholes: dict[Parted, nn.Module] = {}
    found: dict[nn.Module, Parted] = {}
    for name, layer in [*model.named_modules(remove_duplicate=False)]:
        kind = None if layer in found else parted_by(layer)
        if kind is not None:
            found[layer] = kind.of(layer)
            wholes[found[layer]] = layer
        if layer in found and name:
            model.set_submodule(name, found[layer])
    return found.get(model, model), wholes


def put_back(model: nn.Module, wholes: Mapping[Parted, nn.Module]) -> nn.Module:
    """Undo ``take_apart`` for each layer none of whose weights is held as cores; why stands on the torch layer."""
    for name, parted in [*model.named_modules(remove_duplicate=False)]:
        if isinstance(parted, Parted) and factorised(parted):
            parted.settle()
        elif isinstance(parted, Parted) and parted in wholes:
            layer = wholes[parted]
            parts = [vars(part) for part in parted.children()]
            reasons = dict.fromkeys(part["left_dense"] for part in parts if "left_dense" in part)
            if reasons:
                vars(layer)["left_dense"] = "; ".join(reasons)
            if not name:
                return layer
            model.set_submodule(name, layer)
    return model
