"""A torch layer with several weights, each of them a linear layer of its own that can be held as cores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from ..base import HOOKS, Factorised

P = TypeVar("P", bound="Parted")
M = TypeVar("M", bound=nn.Module)
Hold = Callable[[nn.Module, str, Factorised], nn.Module]
"""Lets a torch layer hold the product of cores as its weight of this name, and returns it."""


class Parted(nn.Module, ABC):
    """What stands for a torch layer of class ``whole`` while weights of it are cores; a subclass of that class, too.

    It has all the layer's attributes, and a child without a bias for each of its weights, which applies it, named as
    the parameter is but for the word weight: the child ``rnn.ih_l0`` has the weight, or the cores, that the parameter
    ``rnn.weight_ih_l0`` was. That name can be read still, and gives the weight put together. All other parameters stay
    what they are. So in a ``state_dict`` a weight that is dense is ``rnn.ih_l0.weight``, one that is held as cores
    ``rnn.ih_l0.cores.NAME``, and a bias ``rnn.bias_ih_l0``.
    """

    whole: ClassVar[type[nn.Module]]

    @classmethod
    @abstractmethod
    def weights(cls, layer: nn.Module) -> dict[str, type[nn.Linear]]:
        """The parameters of a layer of class ``whole``, or this, that become children, and of which class."""

    @classmethod
    def of(cls: type[P], layer: nn.Module) -> P:
        """``layer`` with a child for each weight, which holds the layer's own parameter; ``layer`` is left as it is."""
        new = cls.__new__(cls)
        vars(new).update(_copied(layer))
        for name, kind in cls.weights(layer).items():
            new.add(name, kind, new._parameters.pop(name))
        new.parted()
        return new

    def add(self, name: str, kind: type[nn.Linear], weight: nn.Parameter | None) -> None:
        """A child for the weight ``(out, in)`` of this name, which stays the same parameter."""
        assert weight is not None
        child = kind(weight.shape[1], weight.shape[0], bias=False, device="meta").train(self.training)
        child._parameters["weight"] = weight
        self._modules[child_name(name)] = child

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
        parts = self.parts()
        for name, part in parts.items():
            del layer._modules[child_name(name)]
            layer._parameters[name] = part._parameters["weight"] if isinstance(part, nn.Linear) else None
        self.joined(layer)
        for name, part in parts.items():
            if isinstance(part, Factorised):
                layer = hold(layer, name, part)
        return layer

    def begin_again(self, reset: str) -> None:
        """Draw parameters as the method ``reset`` of the torch layer does, weights that are cores as new cores."""
        layer = self.together(_dense)  # whose other parameters are this one's
        getattr(layer, reset)()
        for name, part in self.parts().items():
            if isinstance(part, Factorised):
                part.redraw(getattr(layer, name))

    def parts(self) -> dict[str, nn.Module]:
        """The children for weights, by the names of these."""
        return {name: self.part(name) for name in self.weights(self)}

    def part(self, name: str) -> nn.Module:
        """The child that applies the weight of this name."""
        found = self._modules[child_name(name)]
        assert found is not None
        return found

    def watched(self) -> bool:
        """Whether someone has to see the children called: hooks are registered on one."""
        return any(part._forward_pre_hooks or part._forward_hooks for part in self.parts().values())

    def __getattr__(self, name: str) -> Any:
        """The weight of this name, put together where it is cores, see ``Factorised.weight``."""
        part = self._of_weight(name)
        return super().__getattr__(name) if part is None else part.weight

    def __setattr__(self, name: str, value: Any) -> None:
        part = self._of_weight(name)
        if part is None:
            super().__setattr__(name, value)
        else:
            part.weight = value  # which one that is held as cores refuses

    def _of_weight(self, name: str) -> nn.Module | None:
        return vars(self).get("_modules", {}).get(child_name(name)) if "weight" in name else None


def like(layer: nn.Module, new: M) -> M:
    """``new`` in the mode of ``layer``, whose place it takes, and with its hooks: the same, so that handles remove
    them."""
    vars(new).update({name: vars(layer)[name] for name in HOOKS})
    return new.train(layer.training)


def child_name(weight: str) -> str:
    """What the child for a weight of this name is called."""
    return weight.removeprefix("weight_").removesuffix("_weight")


def plus(x: Tensor, bias: Tensor | None) -> Tensor:
    """What a child gave, and the bias that the layer has beside it in the same type, which autocast may have set."""
    return x if bias is None else x + bias.to(x.dtype)


def _dense(module: nn.Module, name: str, layer: Factorised) -> nn.Module:
    """A ``Hold`` that puts the weight together."""
    module._parameters[name] = nn.Parameter(layer.to_dense().detach())
    return module


def _copied(layer: nn.Module) -> Mapping[str, Any]:
    """A module's attributes; those that say what belongs to it are copies, hooks are the same."""
    own = {key: value for key, value in vars(layer).items() if isinstance(value, dict) and key not in HOOKS}
    return vars(layer) | {key: value.copy() for key, value in own.items()}
