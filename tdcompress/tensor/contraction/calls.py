"""The calls that a contraction path is compiled to: linear, convolution and matmul on channels_last activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .roles import KERNEL

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Convolution:
    """How a kernel moves over the input: settings along each axis, as torch's convolutions take them.

    ``transposed``: it is the gradient of a convolution with these settings, which may be taken along one axis after
    the other, too. Only then there is ``output_padding``.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...] = ()
    transposed: bool = False

    @property
    def modes(self) -> tuple[str, ...]:
        """The kernel modes of these axes."""
        return tuple(KERNEL)[-len(self.stride) :]

    @property
    def space(self) -> tuple[str, ...]:
        """The spatial indices of these axes."""
        return tuple(KERNEL[mode] for mode in self.modes)

    def along(self, axes: Sequence[str]) -> Convolution:
        """The same over ``axes`` only, some of ``modes``."""

        def kept(values: Sequence[int], missing: int) -> tuple[int, ...]:
            return tuple(v if mode in axes else missing for v, mode in zip(values, self.modes, strict=True))

        stride, padding, dilation = kept(self.stride, 1), kept(self.padding, 0), kept(self.dilation, 1)
        if not self.transposed or not axes:  # without a kernel either is a product at every pixel
            return Convolution(stride, padding, dilation)
        return Convolution(stride, padding, dilation, kept(self.output_padding, 0), True)

    def __call__(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
        """``(b, in, space)`` with a kernel of torch's shape."""
        axes = len(self.stride)
        if not self.transposed:
            return _CONVOLVE[axes](x, kernel, bias, self.stride, self.padding, self.dilation, groups)
        settings = (self.stride, self.padding, self.output_padding, groups, self.dilation)
        return _TRANSPOSED[axes](x, kernel, bias, *settings)

    def by(self, kernel: Tensor, groups: int) -> Callable[..., Tensor]:
        """The convolution by this kernel, of an input and, by name, a ``bias``: without a call of Python's own."""
        if self.transposed:
            return partial(self, kernel=kernel, groups=groups)
        settings = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": groups}
        return partial(_CONVOLVE[len(self.stride)], weight=kernel, **settings)


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

    ``copies``: how often the result is repeated along its first index, whose size it multiplies. ``read``: how many
    rows and columns of it are used, where the others are padding.
    """

    slot: int
    order: tuple[int, ...]
    shape: tuple[int, ...]
    copies: int = 1
    read: tuple[int, int] | None = None

    def __call__(self, slots: list[Tensor]) -> Tensor:
        weight = slots[self.slot].permute(self.order).reshape(self.shape)
        if self.read is not None:
            weight = weight[: self.read[0], : self.read[1]]
        return weight if self.copies == 1 else weight.expand(self.copies, *self.shape).flatten(0, 1)


class Kernel(Weight):
    """The kernel of a convolution, which lies as ``fastest`` says."""

    def __call__(self, slots: list[Tensor]) -> Tensor:
        return fastest(super().__call__(slots))


def fastest(kernel: Tensor) -> Tensor:
    """The same, copied where it does not lie so already, channels last; plainly contiguous in float64, or in vmap."""
    if kernel.dtype == torch.float64 or torch._C._functorch.is_batchedtensor(kernel):
        return kernel.contiguous()
    return kernel.contiguous(memory_format=torch.channels_last if kernel.dim() == 4 else torch.channels_last_3d)


@dataclass(frozen=True)
class Linear:
    """A matrix product over the last indices of the activation, which ``new`` ones replace."""

    weight: Weight
    order: tuple[int, ...] | None  # permutation of the activation, None if it lies right
    lead: int  # how many indices stay
    summed: int  # entries summed over
    new: tuple[int, ...]  # sizes of the new indices

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x = F.linear(self.rows(x), weight, bias)
        return x if len(self.new) == 1 else x.reshape(*x.shape[:-1], *self.new)

    def rows(self, x: Tensor) -> Tensor:
        """The activation as what the matrix is multiplied with."""
        if self.order is not None:
            x = x.permute(self.order)
        return x.reshape(*x.shape[: self.lead], self.summed)


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
    """A convolution: the indices before those of space are its batch, those behind them its channels.

    ``groups``: the entries of bonds that later calls need again, and of indices that stay among the channels. ``axes``:
    the kernel modes along which it runs, moved as ``moves`` says.
    """

    weight: Weight
    order: tuple[int, ...] | None
    lead: int  # how many indices stand before those of space
    channels: int
    groups: int
    new: tuple[int, ...]  # sizes behind those of space afterwards
    axes: tuple[str, ...]
    moves: Convolution

    def __call__(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.order is not None:
            x = x.permute(self.order)
        lead = x.shape[: self.lead]
        x = self.convolved(x, kernel, bias)
        return x.permute(0, *range(2, x.dim()), 1).reshape(*lead, *x.shape[2:], *self.new)

    def convolved(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The same for an activation that lies right already, as torch returns it: ``(images, channels, space)``."""
        lead, end = x.shape[: self.lead], self.lead + len(self.moves.stride)
        x = x.reshape(math.prod(lead), *x.shape[self.lead : end], self.channels)
        return self.moves(x.permute(0, x.dim() - 1, *range(1, x.dim() - 1)), kernel, bias, self.groups)


Step = Linear | Batched | Scale | Conv
