"""The calls that a contraction path is compiled to: linear, conv2d and matmul on channels_last activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Convolution:
    """Stride, padding and dilation along y and x, as conv2d takes them."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def along(self, axes: tuple[str, ...]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """The arguments of a convolution over ``axes`` only (a subset of kh, kw)."""
        height, width = "kh" in axes, "kw" in axes
        return (
            (self.stride[0] if height else 1, self.stride[1] if width else 1),
            (self.padding[0] if height else 0, self.padding[1] if width else 0),
            (self.dilation[0] if height else 1, self.dilation[1] if width else 1),
        )


@dataclass(frozen=True)
class Merge:
    """Contract the weight tensors in slots ``left`` and ``right``; the result is appended as a new slot."""

    left: int
    right: int
    left_order: tuple[int, ...]
    right_order: tuple[int, ...]
    left_shape: tuple[int, ...]
    right_shape: tuple[int, ...]
    shape: tuple[int, ...]
    elementwise: bool

    def __call__(self, slots: list[Tensor]) -> Tensor:
        left = slots[self.left].permute(self.left_order).reshape(self.left_shape)
        right = slots[self.right].permute(self.right_order).reshape(self.right_shape)
        return (left * right if self.elementwise else left @ right).reshape(self.shape)


@dataclass(frozen=True)
class Weight:
    """A call's weight from the tensor in ``slot``: its indices permuted to ``order``, then reshaped to ``shape``.

    ``memory``: the order of the slot's indices in memory, slowest first, in which neither copies. ``copies``: how often
    the result is repeated along its first index, whose size it multiplies. ``read``: how many rows and columns of it
    are used, where the others are padding.
    """

    slot: int
    order: tuple[int, ...]
    shape: tuple[int, ...]
    memory: tuple[int, ...]
    copies: int = 1
    read: tuple[int, int] | None = None

    def __call__(self, slots: list[Tensor]) -> Tensor:
        weight = slots[self.slot].permute(self.order).reshape(self.shape)
        if self.read is not None:
            weight = weight[: self.read[0], : self.read[1]]
        return weight if self.copies == 1 else weight.expand(self.copies, *self.shape).flatten(0, 1)


class Kernel(Weight):
    """The kernel of a convolution: channels last, for which conv2d is fastest, or plainly contiguous in float64.

    Copied only where it does not lie so already.
    """

    def __call__(self, slots: list[Tensor]) -> Tensor:
        weight = super().__call__(slots)
        plain = weight.dtype == torch.float64
        return weight.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


@dataclass(frozen=True)
class Linear:
    """A matrix product over the last indices of the activation, which ``new`` ones replace."""

    weight: Weight
    order: tuple[int, ...] | None  # permutation of the activation, None if it lies right
    lead: int  # how many indices stay
    summed: int  # entries summed over
    new: tuple[int, ...]  # sizes of the new indices

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.order is not None:
            x = x.permute(self.order)
        lead = x.shape[: self.lead]
        x = F.linear(x.reshape(*lead, self.summed), weight, bias)
        return x if len(self.new) == 1 else x.reshape(*lead, *self.new)


@dataclass(frozen=True)
class Batched:
    """A matrix product for each value of the leading group indices."""

    weight: Weight
    order: tuple[int, ...] | None
    group: int  # how many group indices lead
    lead: int  # how many indices stay, the group included
    summed: int
    new: tuple[int, ...]

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.order is not None:
            x = x.permute(self.order)
        lead = x.shape[: self.lead]
        rows = math.prod(lead[self.group :])
        return (x.reshape(weight.shape[0], rows, self.summed) @ weight).reshape(*lead, *self.new)


@dataclass(frozen=True)
class Scale:
    """An elementwise product along the group indices."""

    weight: Weight

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight.to(x.dtype)  # autocast leaves products alone, and they would be widened


@dataclass(frozen=True)
class Conv:
    """A convolution: the indices before y and x are its batch, those behind them its channels.

    ``groups``: the entries of bonds that later calls need again, and of indices that stay among the channels.
    """

    weight: Weight
    order: tuple[int, ...] | None
    lead: int  # how many indices stand before y and x
    channels: int
    groups: int
    new: tuple[int, ...]  # sizes behind y and x afterwards
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def __call__(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.order is not None:
            x = x.permute(self.order)
        lead = x.shape[: self.lead]
        x = self.convolved(x, kernel, bias)
        return x.permute(0, 2, 3, 1).reshape(*lead, *x.shape[2:], *self.new)

    def convolved(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same for an activation that lies right already, as conv2d returns it: ``(images, channels, y, x)``."""
        lead, (height, width) = x.shape[: self.lead], x.shape[self.lead : self.lead + 2]
        x = x.reshape(math.prod(lead), height, width, self.channels).permute(0, 3, 1, 2)
        return F.conv2d(x, kernel, bias, self.stride, self.padding, self.dilation, self.groups)


Step = Linear | Batched | Scale | Conv
