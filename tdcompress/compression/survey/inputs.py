"""What a model is shown: an input of zeros, or inputs that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from ...tensor.errors import ConfigError


@dataclass(frozen=True)
class Examples:
    """The arguments of a forward pass; ``shape``: that of one input of zeros without the batch dimension, if it is one.

    What is counted for them is of one such pass, whatever their batch size.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None

    @staticmethod
    def of(model: nn.Module, input_shape: Sequence[int] | None, example_inputs: Any = None) -> Examples:
        """A batch of one input of zeros, ``input_shape`` without the batch dimension, as ``model`` computes; or these.

        ``example_inputs``: a tensor, a tuple or list of positional arguments, or a mapping of keywords. Raises
        ``ConfigError`` unless one of the two is given, and for tensors on another device than the model.
        """
        if (input_shape is None) == (example_inputs is None):
            raise ConfigError("say what the model takes: input_shape or example_inputs, one of them")
        if input_shape is not None:
            some = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
            if not all(isinstance(size, int) for size in input_shape):
                raise ConfigError(f"input_shape={input_shape} holds what is no whole number; see example_inputs")
            zeros = torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype)
            return Examples((zeros,), shape=tuple(input_shape))
        if isinstance(example_inputs, Mapping):
            found = Examples((), example_inputs)
        else:
            found = Examples(tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,))
        here, there = {p.device for p in model.parameters()}, {tensor.device for tensor in found.tensors}
        if len(here) == 1 and not there <= here:
            (device,), others = here, ", ".join(sorted(map(str, there - here)))
            raise ConfigError(f"example_inputs are on {others}, the model is on {device}: bring them to one device")
        return found

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, also those inside of tuples, lists and dictionaries."""
        return [value for value in tree_leaves((self.args, dict(self.kwargs))) if isinstance(value, Tensor)]

    @property
    def batch(self) -> int:
        """The first dimension of the first tensor."""
        return next((len(tensor) for tensor in self.tensors if tensor.dim()), 1)

    def __str__(self) -> str:
        if self.shape is not None:
            return f"an input of shape {self.shape}"
        said = [*map(_said, self.args), *(f"{name}={_said(value)}" for name, value in self.kwargs.items())]
        return f"example_inputs ({', '.join(said)})"


def refuse(model: nn.Module) -> None:
    """Raise ``ConfigError`` for a model whose layers cannot be swapped as it is."""
    refuse_lazy(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ConfigError(f"{name} is on the meta device, without values: load the model's weights first")
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise ConfigError(f"{name} was made in inference mode: build the model outside of torch.inference_mode()")
    if not any(True for _ in model.parameters()):
        raise ConfigError(f"{type(model).__name__} has no parameters, so there is nothing to compress")


def refuse_lazy(model: nn.Module) -> None:
    """Raise ``ConfigError`` for a model with parameters or buffers that its first input gives their shapes."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ConfigError(f"{name} has no shape yet: call the model with an input first")


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
