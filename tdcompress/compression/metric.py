"""What the layers of a model are given by data: the second moments that their weights are fitted by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves, tree_map_only

from ..layers.conv import FactorisedConv
from ..layers.kinds import kind_of
from ..tensor.errors import ConfigError
from ..tensor.fitting.metric import LARGEST, Moment
from ..tensor.weight import uncast
from .survey.attributes import evaluated
from .survey.inputs import Examples, is_several, told
from .survey.trace import watch

ROWS = 4096
"""Inputs drawn from those of one call, at most; a call of a convolution has one for each of its outputs' pixels."""


def batches(model: nn.Module, data: Iterable[Any]) -> list[Examples]:
    """The inputs in ``data``, where the model is.

    Of a tuple or list, which is ``(inputs, targets)``, the first element; the inputs: a tensor, a tuple of arguments,
    or a mapping of keywords. Raises ``ConfigError`` where there are none.
    """
    if isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable):
        raise ConfigError(f"data= takes an iterable of batches, a DataLoader or a list, not {type(data).__name__}")
    device = next(model.parameters()).device
    found = []
    for batch in data:
        inputs = batch[0] if is_several(batch) and batch else batch
        inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
        if not any(isinstance(value, Tensor) for value in tree_leaves(inputs)):
            raise ConfigError(f"data= holds a batch without tensors ({type(batch).__name__})")
        here = tree_map_only(Tensor, lambda tensor: tensor.to(device), inputs)
        found.append(Examples.of(model, None, here, called="a batch of data="))
    if not found:
        raise ConfigError("data= holds no batch")
    return found


def moments(model: nn.Module, uses: Mapping[str, Sequence[str]], data: Sequence[Examples]) -> dict[str, Moment]:
    """The second moment of what each of these layers is given while ``model``, in evaluation mode, sees ``data``.

    ``uses``: by the name of each of them those of all that have its weight and use it alike, itself among them.
    Uncentred, over a layer's input channels, groups taken together; of convolutions over channels times kernel taps
    where these are at most ``LARGEST``, else, and where they are transposed, over the channels alone; of wider linear
    layers only the diagonal; of embeddings how often each row is read, once more than it was. At most ``ROWS`` inputs
    of a call are drawn, always the same. Raises ``ConfigError`` for layers that ``data`` does not reach, for inputs
    that the model cannot take, for activations that are not finite, and for those that ``estimate_again`` could not
    take the variance of.
    """
    layers = {name: model.get_submodule(name) for names in uses.values() for name in names}
    first = {name: one for one, names in uses.items() for name in names}
    norms = {name: layer for name, layer in model.named_modules() if _estimates(layer)}
    found: dict[str, Tensor] = {}
    counts = dict.fromkeys(uses, 0)
    generator = torch.Generator().manual_seed(0)

    def note(name: str, x: Tensor) -> None:
        if name in norms:
            if x.numel() <= x.shape[1]:
                raise ConfigError(f"layer {name}: a batch of data= gives it no two values of a channel, so no variance")
            return
        value, count = _moment(layers[name], x.detach(), generator)
        one = first[name]
        found[one] = found[one] + value if one in found else value
        counts[one] += count

    for examples in data:
        watch(model, layers | norms, examples, note)
    for name in uses:
        if not counts[name]:
            raise ConfigError(f"layer {name}: no batch of data= reaches it, so nothing says what it is given")
        if not found[name].isfinite().all():
            raise ConfigError(f"layer {name}: what data= gives it is not finite")
    return {name: Moment((value / counts[name]).cpu(), _looks_up(layers[name])) for name, value in found.items()}


def _looks_up(layer: nn.Module) -> bool:
    kind = kind_of(layer)
    return kind is not None and kind.factorised.lookup


def _moment(layer: nn.Module, x: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
    """The sum of the squares of the inputs in ``x``, as a matrix or its diagonal, and how many inputs these are."""
    kind = kind_of(layer)
    assert kind is not None
    outputs, inputs, *taps = kind.outputs_first(layer).shape
    if kind.factorised.lookup:
        read = x.flatten().bincount(minlength=outputs).double()
        return read + 1, x.numel() + outputs
    if isinstance(layer, _ConvNd) and issubclass(kind.factorised, FactorisedConv):
        rows = _patches(layer, kind.factorised, x, inputs, taps, generator)
    else:
        rows = _drawn(x.reshape(-1, inputs), generator)
    rows = rows.float()
    if rows.shape[1] > LARGEST and not taps:
        return rows.square().sum(0).double(), len(rows)
    with uncast(rows):
        value = (rows.T @ rows).double()
    if isinstance(layer, _ConvNd) and layer.transposed and layer.groups > 1:  # inputs of two groups never meet
        of_group = torch.arange(inputs, device=value.device) // (inputs // layer.groups)
        value = value * (of_group[:, None] == of_group)
    return value, len(rows)


def _patches(
    layer: _ConvNd, held: type[FactorisedConv], x: Tensor, inputs: int, taps: Sequence[int], generator: torch.Generator
) -> Tensor:
    """What the weight of each group is multiplied with at some of the outputs' pixels: ``(pixels, inputs [* taps])``.

    Pixels of the input, where the moment is of channels alone.
    """
    axes = len(taps)
    if x.dim() == axes + 1:
        x = x[None]
    windows = x
    whole = not layer.transposed and inputs * math.prod(taps) <= LARGEST
    if whole:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        windows = F.pad(x, held.padding_of(layer, x.shape[-axes:]), mode=mode)
        for axis, (tap, stride, dilation) in enumerate(zip(taps, layer.stride, layer.dilation, strict=True), 2):
            windows = windows.unfold(axis, dilation * (tap - 1) + 1, stride)[..., ::dilation]
    sizes = (len(x), *windows.shape[2 : 2 + axes])
    count = math.prod(sizes)
    few = count <= ROWS
    pixels = (
        torch.arange(count, device="cpu") if few else torch.randint(count, (ROWS,), generator=generator, device="cpu")
    )
    image, *places = torch.unravel_index(pixels.to(x.device), sizes)
    rows = windows.movedim(1, 1 + axes)[(image, *places)]  # (pixels, channels, taps ..)
    return rows.reshape(-1, inputs * (math.prod(taps) if whole else 1))


def _drawn(rows: Tensor, generator: torch.Generator) -> Tensor:
    if len(rows) <= ROWS:
        return rows
    return rows[torch.randint(len(rows), (ROWS,), generator=generator, device="cpu").to(rows.device)]


def _estimates(layer: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


def estimate_again(model: nn.Module, data: Sequence[Examples]) -> None:
    """Estimate the running statistics of batch normalisations from ``data``: the mean of those of its batches.

    All else stays in evaluation mode, as it is. Layers that ``data`` does not reach keep what they have. Raises
    ``ConfigError`` for batches that the model cannot take.
    """
    norms = [layer for layer in model.modules() if _estimates(layer)]
    if not norms:
        return
    with evaluated(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True
        for examples in data:
            with told(examples):
                examples.given_to(model)
        reached = [norm for norm in norms if norm.num_batches_tracked is not None and int(norm.num_batches_tracked) > 0]
        found = {norm: {name: value.clone() for name, value in norm.named_buffers()} for norm in reached}
    for norm, statistics in found.items():
        for name, value in norm.named_buffers():
            if name != "num_batches_tracked":
                value.copy_(statistics[name])
