"""Which torch layers can be held as cores, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .base import Factorised
from .conv import FactorisedConv2d


def dense_macs(layer: nn.Module, inputs: Mapping[tuple[int, ...], int]) -> int:
    """Multiply-accumulates per image of a convolution or linear layer whose weight is dense.

    ``layer``: ``Conv2d``, ``Linear`` or a factorised one; ``inputs``: the shapes of what it is given for one image,
    with the batch dimension, and how often.
    """
    return math.prod(weight_shape(layer)) * sum(calls * _positions(layer, shape) for shape, calls in inputs.items())


def _positions(layer: nn.Module, input_shape: Sequence[int]) -> int:
    """How often a layer applies its whole weight to an input of this shape."""
    if isinstance(layer, FactorisedConv2d):
        return math.prod(layer.out_size(*input_shape[-2:]))
    if isinstance(layer, nn.Conv2d):
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        padded = zip(
            input_shape[-2:], (top + bottom, left + right), layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
        return math.prod((size + pad - dil * (taps - 1) - 1) // step + 1 for size, pad, dil, taps, step in padded)
    return math.prod(input_shape[1:-1])


def weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """The shape of the dense weight, ``(out, in)`` or ``(out, in / groups, kh, kw)``, of such a layer."""
    if isinstance(layer, Factorised):
        return layer.weight_shape
    assert isinstance(layer.weight, Tensor)
    return tuple(layer.weight.shape)
