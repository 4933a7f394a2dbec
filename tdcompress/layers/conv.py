"""Convolutions whose weight is held as cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..tensor.contraction.calls import Convolution
from ..tensor.contraction.path import Geometry
from ..tensor.graph import Graph
from .base import Factorised, Planner, holding

Conv = nn.Conv1d | nn.Conv2d
TORCH: dict[int, Callable[..., Conv]] = {1: nn.Conv1d, 2: nn.Conv2d}
"""Torch's convolution along so many axes."""
_CALLS = {1: F.conv1d, 2: F.conv2d}


class FactorisedConv(Factorised):
    """A torch convolution along one axis or two with a factorised weight ``(out, in / groups, [kh,] kw)``.

    Takes the settings of ``twin``, the convolution whose place it takes. Inputs ``(b, in, [y,] x)``, with or without
    the batch dimension, best channels last; one axis is contracted as images of height one. Padding that torch's
    convolution cannot do along one axis at a time (a padding mode other than zeros, an uneven 'same') is added
    beforehand. With ``groups`` above one the weight is put together.
    """

    spatial = True

    def __init__(
        self,
        format: str,
        graph: Graph,
        weight_shape: Sequence[int],
        cores: Sequence[Tensor],
        bias: Tensor | None,
        planner: Planner,
        twin: Conv,
    ) -> None:
        self.kernel_size, self.groups, self.padding_mode = tuple(twin.kernel_size), twin.groups, twin.padding_mode
        self.stride, self.dilation = self._along(twin.stride), self._along(twin.dilation)
        before, after = self._padding(twin)
        even = before == after and twin.padding_mode == "zeros"
        # As torch.nn.functional.pad takes it: (left, right[, top, bottom]), the last axis first.
        around = tuple(size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair)
        self.pad_first = None if even else around
        self.padding = before if even else (0,) * len(before)
        self.total_padding = tuple(map(sum, zip(before, after, strict=True)))
        self.reconstructs = twin.groups > 1
        super().__init__(format, graph, weight_shape, cores, bias, planner, twin)

    def _along(self, value: int | Sequence[int]) -> tuple[int, ...]:
        """A setting of torch's, along each axis."""
        return (value,) * len(self.kernel_size) if isinstance(value, int) else tuple(value)

    def _padding(self, twin: Conv) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What torch adds before and after the input along each axis: it reads other attributes in other modes."""
        if twin.padding_mode != "zeros":
            around = tuple(twin._reversed_padding_repeated_twice)
            return around[-2::-2], around[-1::-2]
        if twin.padding == "same":
            total = [gap * (taps - 1) for gap, taps in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple(size // 2 for size in total), tuple(size - size // 2 for size in total)
        both = self._along(0 if isinstance(twin.padding, str) else twin.padding)
        return both, both

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """The output's size along each axis, for an input of this size."""
        along = zip(size, self.total_padding, self.dilation, self.kernel_size, self.stride, strict=True)
        return tuple((length + pad - gap * (taps - 1) - 1) // step + 1 for length, pad, gap, taps, step in along)

    def positions(self, input_shape: Sequence[int]) -> int:
        """Pixels of the outputs for an input ``([n,] in, [y,] x)``."""
        axes = len(self.stride)
        return math.prod((*input_shape[: -axes - 1], *self.out_size(input_shape[-axes:])))

    def geometry(self, batch: int, input_shape: Sequence[int]) -> Geometry:
        """The planner's view of ``batch`` inputs that are shaped as ``([n,] in, [y,] x)``."""
        axes = len(self.stride)
        size, batch = tuple(input_shape[-axes:]), batch * math.prod(input_shape[: -axes - 1])
        after = self.out_size(size)
        if self.pad_first is not None:
            size = tuple(map(sum, zip(size, self.total_padding, strict=True)))
        return Geometry(batch, tuple(zip("yx", zip(_two(size), _two(after), strict=True), strict=True)))

    def convolution(self) -> Convolution:
        """How the kernel moves over the input, padded beforehand where need be."""
        return Convolution(_two(self.stride), _two(self.padding, 0), _two(self.dilation))

    def plain(self) -> nn.Module:
        """Torch's convolution that holds ``to_dense()``."""
        outputs, inputs = self.weight_shape[:2]
        padding: tuple[int, ...] | str = self.padding
        if self.pad_first is not None:
            before = self.pad_first[-2::-2]
            padding = before if before == self.pad_first[-1::-2] else "same"
        module = TORCH[len(self.stride)](
            inputs * self.groups, outputs, self.kernel_size, self.stride, padding, self.dilation, self.groups,
            padding_mode=self.padding_mode, device="meta",
        )  # fmt: skip
        return holding(module, self.to_dense(), self.bias)

    def forward(self, input: Tensor) -> Tensor:
        axes = len(self.stride)
        if input.dim() == axes + 1:
            return self(input[None])[0]
        x, shape = input, input.shape
        if self.pad_first is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self.pad_first, mode=mode)
        if self.reconstructs:
            weight = self.kept.get(self.tensors(), "whole", self.to_dense) if self.infers(x) else self.to_dense()
            return _CALLS[axes](x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return self.contract(x, shape=shape) if axes == 2 else self.contract(x[:, :, None], shape=shape)[:, :, 0]


def _two(values: Sequence[int], missing: int = 1) -> tuple[int, int]:
    """The values along y and x, of a convolution along x alone ``missing`` along y."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])
