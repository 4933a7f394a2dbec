"""What modules have, to be given back to them or to a copy."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)


class Attributes:
    """The attributes of all modules of a model as they are now, but for those of the names ``but``.

    Children, parameters and buffers are among them, their values are not; containers are kept with what they contain.
    """

    def __init__(self, model: nn.Module, but: Collection[str] = ()) -> None:
        self.but = but
        self.before = [
            (module, {key: (value, _content(value)) for key, value in vars(module).items() if key not in but})
            for module in model.modules()
        ]

    def restore(self) -> None:
        """Give every module these attributes, and no others."""
        for module, attributes in self.before:
            for key in vars(module).keys() - set(self.but) - attributes.keys():
                del vars(module)[key]
            for key, (value, content) in attributes.items():
                vars(module)[key] = value
                if content is not None:
                    value.clear()
                    (value.extend if isinstance(value, list) else value.update)(content)


def of_a_pass(model: nn.Module) -> Attributes:
    """What a pass may leave otherwise: caches and counters of a user's, and buffers that it puts in place of others."""
    return Attributes(model, but=vars(nn.Module()).keys() - {"_buffers"})


def _content(value: Any) -> Any:
    """A copy of a container that can be filled again, None for any other value: a subclass may refuse it."""
    return copy.copy(value) if type(value) in (dict, OrderedDict, list, set) else None


@contextmanager
def all_or_nothing(model: nn.Module) -> Iterator[None]:
    """Where something is raised inside, ``model`` has the modules, parameters and attributes that it had before."""
    before = Attributes(model)
    try:
        yield
    except BaseException:
        before.restore()
        raise


def copied(model: M) -> M:
    """A deep copy, with what torch itself does not copy: tensors that a module keeps of a pass with gradients.

    In the copy they have their values, but are no longer functions of the parameters.
    """
    with _WithoutHistory():
        return copy.deepcopy(model)


class _WithoutHistory(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
