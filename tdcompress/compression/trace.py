"""What the layers of a model are given when it sees an input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from ..layers.base import Factorised
from ..tensor.errors import ConfigError

Inputs = Counter[tuple[int, ...]]
"""The shapes of what a layer is given for one image, with the batch dimension, and how often: a recurrent layer calls
its hidden-to-hidden weight once a time step. A plan is made for the first."""


def input_shapes(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Inputs]:
    """The inputs, for one image, of each convolution and linear layer that a forward pass reaches, in order."""
    kinds = nn.Conv2d | nn.Linear | Factorised
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    some = next(model.parameters())
    found: dict[str, Inputs] = {}

    def note(name: str, x: torch.Tensor) -> None:
        found.setdefault(name, Counter())[tuple(x.shape)] += 1

    try:
        _watched(model, layers, torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype), note)
    except Exception as error:  # anyone's code, which may object to a shape in any way
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"the model cannot take an input of shape {tuple(input_shape)}: {reason}") from error
    return found


def layer_inputs(model: nn.Module, layers: Mapping[str, nn.Module], batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each of ``layers`` is given first when ``model`` sees ``batch``, in the order in which they are reached."""
    found: dict[str, torch.Tensor] = {}

    def note(name: str, x: torch.Tensor) -> None:
        if name not in found:
            found[name] = x.detach().clone()

    _watched(model, layers, batch, note)
    return found


def _watched(
    model: nn.Module, layers: Mapping[str, nn.Module], batch: torch.Tensor, note: Callable[[str, torch.Tensor], None]
) -> None:
    """Show ``batch`` to ``model``, and ``note`` what each of ``layers`` is given, call by call.

    Neither the model's statistics nor random states change.
    """
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args, name=name: note(name, args[0]))
        for name, layer in layers.items()
    ]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
