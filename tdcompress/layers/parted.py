"""A torch layer with several weights, each of them a linear layer of its own that can be held as cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .base import Factorised

P = TypeVar("P", bound="Parted")
Hold = Callable[[nn.Module, str, Factorised], nn.Module]
"""Lets a torch layer hold the product of cores as its weight of this name, and returns it."""


class Parted(nn.Module):
    """What stands for a torch layer of class ``whole`` while weights of it are cores; a subclass of that class, too.

    It has all the layer's attributes, and under the name of each of its weights a child without a bias that applies
    it: ``rnn.weight_ih_l0`` is the layer whose weight (or whose cores) the parameter of this name was. All other
    parameters keep their names. In a ``state_dict`` a weight that is dense has ``.weight`` behind its name, one that
    is held as cores ``.cores.NAME``.
    """

    whole: ClassVar[type[nn.Module]]

    @classmethod
    def weights(cls, layer: nn.Module) -> dict[str, type[nn.Linear]]:
        """The parameters of a layer of class ``whole`` that become children, and of which class: others stay."""
        raise NotImplementedError

    @classmethod
    def of(cls: type[P], layer: nn.Module) -> P:
        """``layer`` with a child for each weight, which holds the layer's own parameter; ``layer`` is left as it is."""
        new = cls.__new__(cls)
        vars(new).update(_copied(layer))
        for name, kind in cls.weights(layer).items():
            weight = new._parameters.pop(name)
            assert weight is not None
            new._modules[name] = child(kind, weight).train(layer.training)
        new.parted()
        return new

    def parted(self) -> None:
        """Adjust attributes of the torch layer to the children; ``joined`` undoes it."""

    def joined(self, layer: nn.Module) -> None:
        """Adjust the attributes of the torch layer that is made of this one."""

    def settle(self) -> None:
        """Decide what depends on how several children contract, once they have been given cores."""

    def together(self, hold: Hold) -> nn.Module:
        """The torch layer with the same weights, copies where they are cores, which ``hold`` puts there."""
        layer = self.whole.__new__(self.whole)
        vars(layer).update(_copied(self))
        parts = {name: part for name, part in self._modules.items() if name in self._names()}
        for name, part in parts.items():
            del layer._modules[name]
            layer._parameters[name] = part._parameters["weight"] if isinstance(part, nn.Linear) else None
        self.joined(layer)
        for name, part in parts.items():
            if isinstance(part, Factorised):
                layer = hold(layer, name, part)
        return layer

    def _names(self) -> set[str]:
        """The names that the children for weights can have."""
        return set(self.weights(self))

    def part(self, name: str) -> nn.Module:
        """The child that applies the weight of this name."""
        found = self._modules[name]
        assert found is not None
        return found

    def watched(self) -> bool:
        """Whether someone has to see the children called: hooks are registered on one."""
        parts = [part for name in self._names() if (part := self._modules.get(name)) is not None]
        return any(part._forward_pre_hooks or part._forward_hooks for part in parts)


def whole_weight(part: nn.Module, infers: bool) -> Tensor:
    """The weight that a child applies, put together in the type that it is stored in; kept while it only ``infers``."""
    if not isinstance(part, Factorised):
        weight = part.weight
        assert isinstance(weight, Tensor)
        return weight
    cores = part.tensors()
    with torch.autocast(cores[0].device.type, enabled=False):  # torch's kernels take weights as they are stored
        if infers and not part.training:
            return part.kept.get(cores, "whole", part.to_dense)
        part.kept.forget()
        return part.to_dense()


def child(kind: type[nn.Linear], weight: nn.Parameter) -> nn.Linear:
    """What applies a weight ``(out, in)``, which stays the same parameter."""
    layer = kind(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer._parameters["weight"] = weight
    return layer


def _copied(layer: nn.Module) -> Mapping[str, Any]:
    """A module's attributes; those that say what belongs to it are copies."""
    return {key: value.copy() if isinstance(value, dict) else value for key, value in vars(layer).items()}
