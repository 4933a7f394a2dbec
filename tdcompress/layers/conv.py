"""Convolutions whose weight is held as cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..tensor.contraction.calls import Convolution
from ..tensor.contraction.path import Geometry, Path
from ..tensor.contraction.plan import compile_path
from ..tensor.graph import Graph
from .base import Factorised


class FactorisedConv2d(Factorised):
    """``nn.Conv2d`` with a factorised weight ``(out, in / groups, kh, kw)``; images ``(b, c, y, x)``, channels last.

    Takes the settings of ``twin``. Padding that conv2d itself cannot do along one axis at a time (a padding mode other
    than zeros, an uneven 'same') is added beforehand. With ``groups`` above one the weight is reconstructed.
    """

    def __init__(self, format: str, graph: Graph, cores: Sequence[Tensor], twin: nn.Conv2d) -> None:
        super().__init__(format, graph, twin.weight.shape, cores, twin.bias)
        self.stride = cast(tuple[int, int], twin.stride)
        self.dilation = cast(tuple[int, int], twin.dilation)
        self.groups = twin.groups
        self.padding_mode = twin.padding_mode
        before_after = twin._reversed_padding_repeated_twice  # (left, right, top, bottom)
        left, right, top, bottom = before_after
        even = left == right and top == bottom and twin.padding_mode == "zeros"
        self.pad_first = None if even else (left, right, top, bottom)
        self.padding = (top, left) if even else (0, 0)
        self.total_padding = (top + bottom, left + right)

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for an input of this height and width."""
        kernel = self.weight_shape[2:]
        (high, wide) = (
            (size + pad - dilation * (taps - 1) - 1) // stride + 1
            for size, pad, dilation, taps, stride in zip(
                (height, width), self.total_padding, self.dilation, kernel, self.stride, strict=True
            )
        )
        return high, wide

    def geometry(self, batch: int, height: int, width: int) -> Geometry:
        """The planner's view of a batch of ``batch`` images of this height and width."""
        after = self.out_size(height, width)
        if self.pad_first is not None:
            height, width = height + self.total_padding[0], width + self.total_padding[1]
        return Geometry(batch, (("y", (height, after[0])), ("x", (width, after[1]))))

    def use(self, path: Path) -> None:
        """Contract along ``path`` from now on."""
        convolution = Convolution(self.stride, self.padding, self.dilation)
        self.plan = compile_path(self.graph, path, spatial=True, convolution=convolution)
        self._lay_out()

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self(x[None])[0]
        if self.pad_first is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self.pad_first, mode=mode)
        if self.groups > 1:
            weight = self.to_dense()
            return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return self.contract(x)
