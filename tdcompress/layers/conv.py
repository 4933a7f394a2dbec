"""Convolutions whose weight is held as cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..tensor.contraction.calls import Convolution
from ..tensor.contraction.path import Geometry
from ..tensor.graph import Graph
from ..tensor.weight import uncast
from .base import Factorised, Planner
from .own_class import OwnClass
from .values import holding

TORCH: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Torch's convolution along so many axes."""
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class FactorisedConv(Factorised):
    """A torch convolution along one to three axes with a factorised weight ``(out, in / groups, [[kd,] kh,] kw)``.

    Takes the settings of ``twin``, the convolution whose place it takes. Inputs ``(b, in, [[z,] y,] x)``, with or
    without the batch dimension, best channels last; one axis is contracted as images of height one. Padding that
    torch's convolution cannot do along one axis at a time (a padding mode other than zeros, an uneven 'same') is added
    beforehand. With ``groups`` above one the weight is put together.
    """

    spatial = True
    kernel_size: tuple[int, ...]
    groups: int
    padding: Any
    padding_mode: str

    def __init__(
        self,
        format: str,
        graph: Graph,
        weight_shape: Sequence[int],
        cores: Sequence[Tensor],
        bias: Tensor | None,
        planner: Planner,
        twin: Any,
    ) -> None:
        self.kernel_size = tuple(twin.kernel_size)
        self.moves, self.pad_first = self._moves(twin)
        self.reconstructs = twin.groups > 1
        super().__init__(format, graph, weight_shape, cores, bias, planner, twin)

    @staticmethod
    def _along(twin: Any, *values: int | Sequence[int]) -> list[tuple[int, ...]]:
        """Settings of torch's layer, each along each axis."""
        axes = len(twin.kernel_size)
        return [(value,) * axes if isinstance(value, int) else tuple(value) for value in values]

    @classmethod
    def _moves(cls, twin: Any) -> tuple[Convolution, tuple[int, ...] | None]:
        """How the kernel moves, and what is added around the input first.

        That as torch.nn.functional.pad takes it: (left, right[, top, bottom[, front, back]]), the last axis first.
        """
        stride, dilation = cls._along(twin, twin.stride, twin.dilation)
        if twin.padding_mode != "zeros":
            around = tuple(twin._reversed_padding_repeated_twice)
        elif twin.padding == "same":
            total = [gap * (taps - 1) for gap, taps in zip(dilation, twin.kernel_size, strict=True)]
            if not any(size % 2 for size in total):
                return Convolution(stride, tuple(size // 2 for size in total), dilation), None
            around = tuple(part for size in total[::-1] for part in (size // 2, size - size // 2))
        else:
            (padding,) = cls._along(twin, 0 if isinstance(twin.padding, str) else twin.padding)
            return Convolution(stride, padding, dilation), None
        return Convolution(stride, (0,) * len(stride), dilation), around

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """The output's size along each axis, for an input of this size, what is added ``around`` it included."""
        moves = self.moves
        along = zip(size, moves.padding, moves.dilation, self.kernel_size, moves.stride, strict=True)
        return tuple((length + 2 * pad - gap * (taps - 1) - 1) // step + 1 for length, pad, gap, taps, step in along)

    @classmethod
    def padding_of(cls, layer: Any, size: Sequence[int]) -> tuple[int, ...]:
        """All that the dense ``layer`` adds around an input of this size, as torch.nn.functional.pad takes it."""
        moves, around = cls._moves(layer)
        return tuple(pad for pad in moves.padding[::-1] for _ in range(2)) if around is None else around

    def around(self, size: Sequence[int]) -> tuple[int, ...] | None:
        """What is added around an input of this size before it is contracted, in the same way."""
        return self.pad_first

    def _padded(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """The size along each axis of an input of this shape, once padding is added."""
        size = input_shape[-len(self.kernel_size) :]
        around = self.around(size) or (0, 0) * len(size)
        return tuple(map(sum, zip(size, around[-2::-2], around[-1::-2], strict=True)))

    def positions(self, input_shape: Sequence[int]) -> int:
        """Pixels of the outputs for an input ``([n,] in, [[z,] y,] x)``."""
        return math.prod((*input_shape[: -len(self.kernel_size) - 1], *self.out_size(self._padded(input_shape))))

    def geometry(self, batch: int, input_shape: Sequence[int]) -> Geometry:
        """The planner's view of ``batch`` inputs that are shaped as ``([n,] in, [[z,] y,] x)``."""
        before = self._padded(input_shape)
        sizes = zip(_lifted(before), _lifted(self.out_size(before)), strict=True)
        batch *= math.prod(input_shape[: -len(self.kernel_size) - 1])
        return Geometry(batch, tuple(zip(self.convolution().space, sizes, strict=True)))

    def convolution(self) -> Convolution:
        """How the kernel moves over the input as it is contracted, padded beforehand where need be."""
        return _images(self.moves)

    def plain(self) -> nn.Module:
        """Torch's convolution that holds ``to_dense()``."""
        settings = {"padding": self.padding, "padding_mode": self.padding_mode, "groups": self.groups}
        outputs, inputs = self.graph.weight_shape[:2]
        module = torch_conv(self.moves, inputs * self.groups, outputs, self.kernel_size, **settings)
        return holding(module, self.to_dense(), self.bias)

    def forward(self, input: Tensor) -> Tensor:
        known = self.known_pass(input)
        output = self._convolved(input) if known is None else known(input, bias=self.bias)
        return output.contiguous() if self.contiguous else output

    def _convolved(self, x: Tensor, moves: Convolution | None = None) -> Tensor:
        """``forward``, with ``moves`` in place of the layer's own."""
        axes = len(self.kernel_size)
        if x.dim() == axes + 1:
            return self._convolved(x[None], moves)[0]
        shape = x.shape
        around = self.around(shape[-axes:])
        if around is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, around, mode=mode)
        if self.reconstructs:
            return (moves or self.moves)(x, self._kernel(x), self.bias, self.groups)
        other = None if moves is None else _images(moves)
        if axes > 1:
            return self.contract(x, shape=shape, convolution=other)
        return self.contract(x[:, :, None], shape=shape, convolution=other)[:, :, 0]

    def _kernel(self, x: Tensor) -> Tensor:
        """The weight put together for this input, kept as the layer's own: nobody else is given it."""
        if not self.infers(x):
            return self.to_dense()
        cores = self.tensors()
        with uncast(cores[0]):  # for whatever autocast computes in next
            return self.kept.get(cores, "kernel", self.to_dense)


class FactorisedConvSame(OwnClass, FactorisedConv):
    """A convolution of timm's class ``Conv2dSame``: as many outputs as strides begin within the input, see TensorFlow.

    So many zeros are added around an input as its size asks for, of an odd number the last one behind.
    """

    chains = False

    @classmethod
    def padding_of(cls, layer: Any, size: Sequence[int]) -> tuple[int, ...]:
        along = zip(size, layer.stride, layer.dilation, layer.kernel_size, strict=True)
        more = [max((-(-n // step) - 1) * step + gap * (taps - 1) + 1 - n, 0) for n, step, gap, taps in along]
        return tuple(part for total in more[::-1] for part in (total // 2, total - total // 2))

    def around(self, size: Sequence[int]) -> tuple[int, ...]:
        return self.padding_of(self, size)


class FactorisedConvTranspose(FactorisedConv):
    """A transposed torch convolution with a factorised weight ``(in, out / groups, [[kd,] kh,] kw)``.

    Its cores, those of the weight ``(out / groups, in, ..)``, are contracted as transposed convolutions, each along the
    kernel axes that it carries. All else is as for ``FactorisedConv``.
    """

    stride: Any
    dilation: Any
    output_padding: Any

    @classmethod
    def _moves(cls, twin: Any) -> tuple[Convolution, tuple[int, ...] | None]:
        stride, padding, dilation, more = cls._along(
            twin, twin.stride, twin.padding, twin.dilation, twin.output_padding
        )
        return Convolution(stride, padding, dilation, more, transposed=True), None

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """The output's size along each axis, for an input of this size and no ``output_size``."""
        moves = self.moves
        along = zip(size, moves.padding, moves.dilation, self.kernel_size, moves.stride, strict=True)
        ends = [(length - 1) * step - 2 * pad + gap * (taps - 1) + 1 for length, pad, gap, taps, step in along]
        return tuple(map(sum, zip(ends, moves.output_padding, strict=True)))

    def positions(self, input_shape: Sequence[int]) -> int:
        """Pixels of an input ``([n,] in, [[z,] y,] x)``: each meets the whole weight, as torch counts it."""
        return math.prod(input_shape[: -len(self.kernel_size) - 1]) * math.prod(input_shape[-len(self.kernel_size) :])

    def geometry(self, batch: int, input_shape: Sequence[int]) -> Geometry:
        """The planner's view of ``batch`` inputs that are shaped as ``([n,] in, [[z,] y,] x)``."""
        return replace(super().geometry(batch, input_shape), transposed=True)

    def plain(self) -> nn.Module:
        """Torch's transposed convolution that holds ``to_dense()``."""
        outputs, inputs = self.graph.weight_shape[:2]
        module = torch_conv(self.moves, inputs, outputs * self.groups, self.kernel_size, groups=self.groups)
        return holding(module, self.to_dense(), self.bias)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        moves = None if output_size is None else self._moves_to(input, output_size)
        output = self._convolved(input, moves)
        return output.contiguous() if self.contiguous else output

    def _moves_to(self, input: Tensor, size: Sequence[int]) -> Convolution:
        """How the kernel moves where outputs are to have this size."""
        axes, moves = len(self.kernel_size), self.moves
        settings = (list(moves.stride), list(moves.padding), list(self.kernel_size), axes, list(moves.dilation))
        padding = _TRANSPOSED[axes]._output_padding(self, input, list(size), *settings)
        return replace(moves, output_padding=tuple(padding))


def torch_conv(moves: Convolution, inputs: int, outputs: int, taps: Sequence[int], **settings: Any) -> nn.Module:
    """Torch's convolution that moves so, on the meta device; ``settings``: others of its arguments."""
    found: dict[str, Any] = {"stride": moves.stride, "padding": moves.padding, "dilation": moves.dilation}
    if moves.transposed:
        found["output_padding"] = moves.output_padding
    cls = (_TRANSPOSED if moves.transposed else TORCH)[len(taps)]
    module: nn.Module = cls(inputs, outputs, tuple(taps), **{**found, **settings}, device="meta")
    return module


def _lifted(values: tuple[int, ...], missing: int = 1) -> tuple[int, ...]:
    """The values along y and x, of a convolution along x alone ``missing`` along y."""
    return (missing, *values) if len(values) == 1 else values


def _images(moves: Convolution) -> Convolution:
    """The same over images, of height one where it is along x alone."""
    return replace(
        moves,
        stride=_lifted(moves.stride),
        padding=_lifted(moves.padding, 0),
        dilation=_lifted(moves.dilation),
        output_padding=_lifted(moves.output_padding, 0),
    )
