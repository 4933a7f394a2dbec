"""What a model is shown: an input of zeros, or inputs that a user gives."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves, tree_map_only

from ...tensor.errors import ConfigError


@dataclass(frozen=True)
class Examples:
    """The arguments of a forward pass; ``shape``: that of one input of zeros without the batch dimension, if it is one;
    ``called``: what the user knows them as.

    What is counted for them is of one such pass, whatever their batch size.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    called: str = "example_inputs"

    @staticmethod
    def of(
        model: nn.Module, input_shape: Sequence[int] | None, example_inputs: Any = None, called: str = called
    ) -> Examples:
        """A batch of one input of zeros, ``input_shape`` without the batch dimension, as ``model`` computes; or these.

        ``example_inputs``: a tensor, a tuple or list of positional arguments, or a mapping of keywords. Raises
        ``ConfigError`` unless one of the two is given, and for tensors on another device than the model.
        """
        refuse_other(model)
        if (input_shape is None) == (example_inputs is None):
            raise ConfigError("say what the model takes: input_shape or example_inputs, one of them")
        if input_shape is not None:
            some = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
            shape = _whole_numbers(input_shape)
            return Examples((torch.zeros(1, *shape, device=some.device, dtype=some.dtype),), shape=shape)
        if isinstance(example_inputs, Mapping):
            found = Examples((), example_inputs, called=called)
        else:
            args = tuple(example_inputs) if is_several(example_inputs) else (example_inputs,)
            found = Examples(args, called=called)
        here, there = {p.device for p in model.parameters()}, {tensor.device for tensor in found.tensors}
        if len(here) == 1 and not there <= here:
            (device,), others = here, ", ".join(sorted(map(str, there - here)))
            raise ConfigError(f"{called} are on {others}, the model is on {device}: bring them to one device")
        if found.batch == 0:
            raise ConfigError(f"{found} is an empty batch: give one input at least")
        return found

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, also those inside of tuples, lists and dictionaries."""
        return [value for value in tree_leaves((self.args, dict(self.kwargs))) if isinstance(value, Tensor)]

    @property
    def batch(self) -> int:
        """The first dimension of the first tensor."""
        return next((len(tensor) for tensor in self.tensors if tensor.dim()), 1)

    def given_to(self, model: nn.Module) -> Any:
        """What ``model`` makes of copies of them: it may write into what it is given."""
        copied = partial(tree_map_only, Tensor, Tensor.clone)
        return model(*copied(self.args), **copied(dict(self.kwargs)))

    def __str__(self) -> str:
        if self.shape is not None:
            return f"an input of shape {self.shape}"
        said = [*map(_said, self.args), *(f"{name}={_said(value)}" for name, value in self.kwargs.items())]
        return f"{self.called} ({', '.join(said)})"


def is_several(given: Any) -> bool:
    """Whether a tuple or list holds several things; a ``PackedSequence``, a tuple by its class, is one."""
    return isinstance(given, tuple | list) and not isinstance(given, PackedSequence)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model that ``torch.compile``, an average of weights or a wrapper for several devices has, or itself."""
    while True:
        if isinstance(model, AveragedModel | DataParallel | DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # of torch.compile's class, whose import takes a second
            model = cast(nn.Module, model._modules["_orig_mod"])
        else:
            return model


def refuse(model: nn.Module) -> None:
    """Raise ``ConfigError`` for what is no model whose layers can be swapped as it is."""
    refuse_other(model)
    if isinstance(model, DistributedDataParallel):
        raise ConfigError("DistributedDataParallel keeps to the parameters it was made with: compress what is wrapped")
    refuse_sharded(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("the layers of a scripted model cannot be replaced: compress the model that was scripted")
    refuse_lazy(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ConfigError(f"{name} is on the meta device, without values: load the model's weights first")
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise ConfigError(f"{name} was made in inference mode: build the model outside of torch.inference_mode()")
    if not any(True for _ in model.parameters()):
        raise ConfigError(f"{type(model).__name__} has no parameters, so there is nothing to compress")


def refuse_other(model: Any) -> None:
    """Raise ``ConfigError`` for what is no model."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"a model is a torch.nn.Module, got {type(model).__name__}")


def refuse_sharded(model: nn.Module) -> None:
    """Raise ``ConfigError`` for a model of which each process holds a part, by ``fully_shard``."""
    for name, module in model.named_modules():
        if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):  # whose import takes a second
            raise ConfigError(
                f"{name or 'the model'} is sharded by fully_shard: compress before that, and save or fold a model that "
                "is not, with the state_dict of torch.distributed.checkpoint's get_model_state_dict"
            )


def refuse_lazy(model: nn.Module) -> None:
    """Raise ``ConfigError`` for a model with parameters or buffers that its first input gives their shapes."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ConfigError(f"{name} has no shape yet: call the model with an input first")


@contextmanager
def told(examples: Examples) -> Iterator[None]:
    """Raise ``ConfigError``, in one line, for what a model that is given these has against them."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # anyone's code, which may object to an input in any way
        raise ConfigError(f"the model cannot take {examples}: {said_of(error)}") from error


def said_of(error: Exception) -> str:
    """What an error of anyone's code says, in a line."""
    return next(filter(str.strip, str(error).splitlines()), type(error).__name__)


def _whole_numbers(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(map(operator.index, shape))
    except TypeError as error:
        raise ConfigError(
            "input_shape says the sizes of one input as whole numbers, such as (3, 32, 32); other inputs are "
            "example_inputs"
        ) from error
    if min(sizes, default=1) < 1:
        raise ConfigError(f"input_shape={sizes} holds a size below one")
    return sizes


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
