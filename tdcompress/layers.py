"""The convolution and linear modules whose weight is held as cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .network.calls import Convolution
from .network.graph import Graph
from .network.path import Geometry, Path
from .network.plan import Plan, compile_path, merge_all


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


class FeatureMapLinear(nn.Linear):
    """A linear layer from a flattened feature map ``(c, y, x)`` to ``out_features``; input ``(b, c * y * x)``.

    Compressed, it is a tensor regression layer (Kossaifi et al. 2020, section 3): its weight has the modes c, y, x and
    the outputs, and the map is contracted mode by mode.
    """

    def __init__(self, feature_map: Sequence[int], out_features: int, bias: bool = True) -> None:
        super().__init__(math.prod(feature_map), out_features, bias)
        self.feature_map = tuple(feature_map)


class StepLinear(nn.Linear):
    """A linear layer that one pass applies to many inputs, one after the other, as ``prepared`` gives it."""


def prepared(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer for all inputs of a pass: what is merged of its cores is merged here, once."""
    return partial(layer, weights=layer.weights()) if isinstance(layer, FactorisedLinear) else layer


class Factorised(nn.Module):
    """A layer that owns the cores of one weight and the plan that contracts them with an input.

    ``format``: its name; ``graph``: the format's graph with its bond sizes; ``weight_shape``: the dense weight's shape
    as torch has it; ``cores``: initial values, one tensor per core of the graph. A subclass compiles ``plan`` in
    ``use``; ``candidates`` are the paths that a measurement may choose from. With ``checkpoint`` only the input is kept
    for backward, which computes the rest again.
    """

    plan: Plan
    checkpoint = False

    def __init__(
        self, format: str, graph: Graph, weight_shape: Sequence[int], cores: Sequence[Tensor], bias: Tensor | None
    ) -> None:
        super().__init__()
        self.graph = graph
        self.weight_shape = tuple(weight_shape)
        self.format = format
        self.planned: Callable[[Graph], list[Path]] | None = None
        self.candidates: list[Path] = []
        self.cores = nn.ParameterDict({core.name: value for core, value in zip(graph.cores, cores, strict=True)})
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)

    def use_best(self, planned: Callable[[Graph], list[Path]]) -> None:
        """Contract along the first of the paths that ``planned`` gives, here and whenever the ranks change."""
        self.planned = planned
        self.candidates = planned(self.graph)
        self.use(self.candidates[0])

    def resize(self, graph: Graph, cores: Sequence[Tensor]) -> None:
        """Give the layer other ranks: the same parameters, holding other values of another size."""
        self.graph = graph
        for core, value in zip(self.tensors(), cores, strict=True):
            core.data, core.grad = value, None
        assert self.planned is not None
        self.use_best(self.planned)

    def _lay_out(self) -> None:
        """Bring each core into the memory order that the plan reads without a copy; its shape stays as it is."""
        for position, core in enumerate(self.tensors()):
            order = self.plan.memory(position) or tuple(range(core.dim()))
            core.data = core.data.permute(order).contiguous().permute([order.index(k) for k in range(len(order))])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Factorised:
        # A memory format is meant for activations and dense kernels, and refused by tensors of five dimensions.
        super()._apply(lambda tensor: fn(tensor.flatten()).view(tensor.shape), recurse)
        if hasattr(self, "plan"):
            self._lay_out()
        return self

    def tensors(self) -> list[nn.Parameter]:
        """The cores in the graph's order."""
        return [self.cores[core.name] for core in self.graph.cores]

    def use(self, path: Path) -> None:
        """Contract along ``path`` from now on."""
        raise NotImplementedError

    def contract(self, x: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Images ``(b, in, y, x)`` or rows ``(b, in)`` with the cores, or what is merged of them, and the bias."""
        call, tensors = (self.plan, self.tensors()) if weights is None else (self.plan.apply, weights)
        if self.checkpoint and torch.is_grad_enabled():
            # Nothing in a plan is random.
            return checkpoint(call, x, tensors, self.bias, use_reentrant=False, preserve_rng_state=False)
        return call(x, tensors, self.bias)

    def to_dense(self) -> Tensor:
        """The reconstructed weight, in the shape of the dense layer's."""
        return merge_all(self.graph, self.tensors()).reshape(self.weight_shape)

    @property
    def weight(self) -> Tensor:
        """``to_dense()``, for code that reads the weight of torch's own layers (``nn.TransformerEncoderLayer``)."""
        return self.to_dense()

    def extra_repr(self) -> str:
        ranks = ", ".join(f"{bond}={size}" for bond, size in self.graph.ranks.items())
        return f"{'x'.join(map(str, self.weight_shape))}, {ranks}"


class FactorisedLinear(Factorised):
    """``nn.Linear`` with a factorised weight ``(out, in)``; input ``(.., in)``, output ``(.., out)``."""

    def geometry(self, batch: int) -> Geometry:
        """The planner's view of a batch of ``batch`` rows."""
        return Geometry(batch)

    def use(self, path: Path) -> None:
        """Contract along ``path`` from now on."""
        self.plan = compile_path(self.graph, path, spatial=False)
        self._lay_out()

    def weights(self) -> list[Tensor]:
        """What the plan multiplies with, in the type that autocast computes in: see ``prepared``."""
        weights = self.plan.weights(self.tensors())
        device = weights[0].device.type
        if torch.is_autocast_enabled(device):
            weights = [weight.to(torch.get_autocast_dtype(device)) for weight in weights]
        return weights

    def forward(self, x: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        if x.dim() == 2:
            return self.contract(x, weights)
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        return self.contract(rows, weights).reshape(*x.shape[:-1], self.weight_shape[0])


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
