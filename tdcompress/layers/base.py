"""The convolution and linear modules whose weight is held as cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..tensor.contraction.path import Path
from ..tensor.contraction.plan import Plan, merge_all
from ..tensor.graph import Graph


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
