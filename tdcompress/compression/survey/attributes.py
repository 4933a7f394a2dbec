"""What modules have, to be given back to them or to a copy."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from ...layers.base import Factorised
from ...tensor.errors import ConfigError

M = TypeVar("M", bound=nn.Module)
_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, deque, set)


class Attributes:
    """The attributes of all modules of a model as they are now, but for those of the names ``but``.

    Children, parameters and buffers are among them; containers are kept with what they contain. With ``values`` so are
    the values of tensors other than parameters, be they buffers, attributes or in containers.
    """

    def __init__(self, model: nn.Module, but: Collection[str] = (), values: bool = False) -> None:
        self.but = but
        self.before = [
            (module, {key: value for key, value in vars(module).items() if key not in but})
            for module in model.modules()
        ]
        held = [value for _, attributes in self.before for value in attributes.values()]
        self.contents = list(_copies(held, values))

    def restore(self) -> None:
        """Give every module these attributes, and no others."""
        for module, attributes in self.before:
            for key in vars(module).keys() - set(self.but) - attributes.keys():
                del vars(module)[key]
            vars(module).update(attributes)
        for value, content in self.contents:
            if isinstance(value, Tensor):
                _put_back(value, content)
            else:
                value.clear()
                (value.extend if isinstance(value, list | deque) else value.update)(content)


def _copies(held: list[Any], values: bool) -> Iterator[tuple[Any, Any]]:
    """What is ``held``, and inside of that, each container once and a copy of it: no subclass, which may refuse one.

    With ``values`` tensors, too, but no parameters.
    """
    left, seen = [*held], set[int]()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if type(one) in _CONTAINERS:
            yield one, copy.copy(one)
            left += one.values() if isinstance(one, dict) else one
        elif values and isinstance(one, Tensor) and not (isinstance(one, nn.Parameter) or one.is_inference()):
            yield one, one.detach().clone()


def _put_back(tensor: Tensor, value: Tensor) -> None:
    """Give ``tensor`` this value again, whatever its shape may be now."""
    if tensor.shape == value.shape:
        try:
            tensor.data.copy_(value)
            return
        except RuntimeError:  # its entries lie on one another, as those of an expanded one do
            if torch.equal(tensor, value):
                return
    tensor.data = value


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """``model`` is in evaluation mode inside, without gradients, and what it was afterwards.

    Its modes, buffers and attributes are: caches and counters of a user's, and tensors that passes write to. So are
    parameters of modules with a ``train`` of their own, as those that merge adapters into a weight, and torch's random
    states.
    """
    modes = {module: module.training for module in model.modules()}
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    before = Attributes(model, but=vars(nn.Module()).keys() - {"_buffers"}, values=True)
    switching = [module for module in modes if type(module).train not in (nn.Module.train, Factorised.train)]
    parameters = [(own, own.detach().clone()) for module in switching for own in module.parameters(recurse=False)]
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with _disable_current_modes():  # none of whose business this is
            before.restore()
            for own, value in parameters:
                _put_back(own, value)


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

    In the copy they have their values, but are no longer functions of the parameters. Raises ``ConfigError``, naming
    the attribute, for what python cannot copy, as locks and open files.
    """
    with _WithoutHistory():
        try:
            return copy.deepcopy(model)
        except Exception as error:  # anyone's code
            raise ConfigError(f"{_uncopied(model) or 'the model'} cannot be copied: {error}") from error


def _uncopied(model: nn.Module) -> str | None:
    """The first attribute, of all modules, that cannot be copied; None where each by itself can."""
    for name, module in model.named_modules():
        for key in vars(module).keys() - vars(nn.Module()).keys():
            try:
                copy.deepcopy(vars(module)[key])
            except Exception:  # anyone's code
                return f"{name}.{key}".lstrip(".") + " of the model"
    return None


class _WithoutHistory(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
