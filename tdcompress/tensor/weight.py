"""A dense weight as it comes in from outside, over the modes of a graph, and as it goes out again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .contraction.plan import merge_all
from .errors import ConfigError
from .graph import Graph


def uncast(tensor: Tensor) -> AbstractContextManager[Any]:
    """Products with this tensor in its own type, whatever autocast asks for."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


def memory(tensor: Tensor) -> int:
    """Which memory a tensor lies in, or which tensor it is, where that has no one place, as a sparse one."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


def extent(tensor: Tensor) -> tuple[int, int]:
    """The bytes of its memory between which a tensor lies; of one without a place in one, none."""
    if tensor.layout != torch.strided:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start, width = int(tensor.storage_offset()), tensor.element_size()
    return start * width, (start + int(last) + 1) * width if tensor.numel() else start * width


def place(tensor: Tensor) -> tuple[object, ...]:
    """Where a tensor lies, and how: tensors of one place are one under several names."""
    strided = tensor.layout == torch.strided
    return memory(tensor), *((tensor.storage_offset(), tensor.shape, tensor.stride()) if strided else ())


def checked(weight: Tensor) -> Tensor:
    """``weight`` itself. Raises ``ConfigError`` unless its entries are finite floating-point numbers.

    Fits compute in single precision at least, whose range no entry may exceed.
    """
    refuse_type(weight)
    if not weight.numel():
        raise ConfigError(f"its weight {tuple(weight.shape)} has no entries")
    bad = 0 if weight.is_meta else int((~weight.detach().float().isfinite()).sum())
    if bad:
        raise ConfigError(f"its weight holds {bad} entries of {weight.numel():,} that are not finite")
    return weight


def refuse_type(weight: Tensor) -> None:
    """Raise ``ConfigError`` for a ``weight`` that is of no floating-point numbers of 16 bits or more."""
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        kind = str(weight.dtype).removeprefix("torch.")
        raise ConfigError(f"its weight is of {kind}, not of floating-point numbers of 16 bits or more")


def over_modes(graph: Graph, weight: Tensor) -> Tensor:
    """``weight`` with one dimension for each mode of ``graph``, padded with zeros where the modes hold more.

    ``weight``: the dense weight's entries, or those over the modes, in their order and in any shape.
    """
    if any(graph.padding) and weight.numel() == graph.dense_parameters:
        outputs, inputs = graph.padding
        weight = weight.reshape(*graph.weight_shape[:2], -1)
        weight = F.pad(weight, (0, 0, 0, inputs, 0, outputs))
    return weight.reshape([graph.sizes[mode] for mode in graph.modes])


def to_dense(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """The weight that the cores stand for, in the shape of the dense one, or of the modes where that is not known."""
    merged = merge_all(graph, cores)
    if any(graph.padding):
        outputs, inputs = graph.weight_shape[:2]
        over_outputs = math.prod(graph.sizes[mode] for mode in graph.outputs)
        over_inputs = math.prod(graph.sizes[mode] for mode in graph.inputs)
        merged = merged.reshape(over_outputs, over_inputs, -1)[:outputs, :inputs]
    return merged.reshape(graph.weight_shape or merged.shape)
