"""A layer whose weight is held as cores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..device.precision import computed
from ..tensor.contraction.calls import Convolution
from ..tensor.contraction.cost import Rates
from ..tensor.contraction.lookup import Lookup
from ..tensor.contraction.path import Geometry, Path
from ..tensor.contraction.plan import Plan, compile_path
from ..tensor.contraction.search import macs, paths
from ..tensor.graph import Graph
from ..tensor.weight import to_dense, uncast
from .kept import Kept, Pass, infers
from .values import drawn, trainable

HOOKS = tuple(name for name in vars(nn.Module()) if "hook" in name and name != "_load_state_dict_pre_hooks")
"""What a module keeps of hooks and what takes its place shares; those before a state is loaded are of the module."""


@dataclass(frozen=True)
class Planner:
    """Plans a layer for batches of ``batch_size`` images, for one of which it is given inputs of ``input_shape``.

    ``input_shape``: with the batch dimension; ``uses``: how many inputs share what is merged of the cores; ``rates``:
    those of the device; ``plan``: see ``search.paths``.
    """

    input_shape: tuple[int, ...]
    batch_size: int
    rates: Rates
    plan: str = "model"
    uses: float = 1

    def __call__(self, layer: Factorised) -> list[Path]:
        """Candidate paths for the layer at its present ranks, the best by the cost model first."""
        geometry = replace(layer.geometry(self.batch_size, self.input_shape), uses=self.uses)
        return layer.paths(geometry, self.rates, self.plan)


class Factorised(nn.Module, ABC):
    """A layer that owns the cores of one weight and the plan that contracts them with an input.

    ``format``: its name; ``graph``: the format's graph with its bond sizes; ``weight_shape``: the dense weight's shape
    as torch has it, inputs first where the weight is ``transposed``; ``cores``: initial values, one tensor per core of
    the graph; ``bias``: the dense layer's own parameter, which others may share; ``twin``: the dense layer, whose
    settings this one has under their names (``stride``, ``in_features``), for code that asks for them; ``planner``
    gives the paths to contract along, whenever the ranks change: ``candidates``, of which the first is used unless a
    measurement chooses another. With ``checkpoint`` only the input is kept for backward, which computes the rest again.
    ``contiguous``: images that it gives are, for code that views them; else they lie channels last.
    ``layout`` is said in reports. ``tied``: other layers whose cores are the same parameters.

    A subclass says what the layer's inputs are to the planner. ``spatial``: they are images, and the kernel's modes
    convolve along their axes. ``lookup``: they are indices of rows of the weight. ``of_cores``: its weight is a product
    of the cores and nothing else. ``reconstructs``: it contracts along no plan, but puts the weight together.
    ``chains``: torch's modules, one for each step of a plan, compute the same.

    In evaluation mode and without gradients, what is merged of the cores is merged once and kept, and the plan is the
    one that is fastest then, for each shape of input; not where it ``keeps`` nothing.
    """

    bias: nn.Parameter | None
    spatial = False
    lookup = False
    of_cores = True
    reconstructs = False
    chains = True
    transposed = False
    checkpoint = False
    contiguous = False
    keeps = True
    layout = ""
    tied: tuple[Factorised, ...] = ()

    def __init__(
        self,
        format: str,
        graph: Graph,
        weight_shape: Sequence[int],
        cores: Sequence[Tensor],
        bias: Tensor | None,
        planner: Planner,
        twin: nn.Module,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.weight_shape = tuple(weight_shape)
        self.format = format
        taken = vars(self).keys() | set(dir(type(self)))
        vars(self).update({key: value for key, value in vars(twin).items() if key[0] != "_" and key not in taken})
        self._settled = frozenset(getattr(twin, "__constants__", ()))
        self.planner = planner
        self.kept = Kept()
        self.cores = nn.ParameterDict(zip((core.name for core in graph.cores), map(trainable, cores), strict=True))
        for core in self.tensors():  # in one piece, as whoever flattens parameters takes them to lie
            core.data = core.data.contiguous()
        self.register_parameter("bias", cast("nn.Parameter | None", bias))
        self._replan()

    @abstractmethod
    def positions(self, input_shape: Sequence[int]) -> int:
        """How often the layer applies its whole weight to an input of this shape."""

    @abstractmethod
    def geometry(self, batch: int, input_shape: Sequence[int]) -> Geometry:
        """The planner's view of ``batch`` images, for one of which the layer is given an input of this shape."""

    @abstractmethod
    def plain(self) -> nn.Module:
        """The torch layer that this one stands for, holding ``to_dense()``."""

    def _replicate_for_data_parallel(self) -> Factorised:
        replica: Factorised = super()._replicate_for_data_parallel()
        replica.kept = Kept()  # each of them is called by a thread of its own
        return replica

    def tie(self, layers: Sequence[Factorised]) -> None:
        """Know of other layers whose cores are the same parameters."""
        self.tied = tuple(layers)

    def convolution(self) -> Convolution | None:
        """How kernel modes move over the input."""
        return None

    def paths(self, geometry: Geometry, rates: Rates, plan: str) -> list[Path]:
        """Candidate paths, the best by the cost model first, see ``search.paths``."""
        return paths(self.graph, geometry, rates, plan)

    def macs(self, input_shape: Sequence[int], graph: Graph | None = None) -> int:
        """Multiply-accumulates along the plan for an input of this shape, with the ranks of ``graph`` if given."""
        return macs(graph or self.graph, self.plan.path, self.geometry(1, input_shape))

    def use(self, path: Path) -> None:
        """Contract along ``path`` from now on."""
        self.plan = self.compiled(path)
        self.kept.forget()

    def compiled(self, path: Path) -> Plan | Lookup:
        """What contracts along this path."""
        return compile_path(self.graph, path, self.convolution())

    def resize(self, graph: Graph, cores: Sequence[Tensor]) -> None:
        """Give the layer, and those tied to it, other ranks: the same parameters, holding other values."""
        for core, value in zip(self.tensors(), cores, strict=True):
            core.data, core.grad = value.contiguous(), None
        for layer in (self, *self.tied):
            layer.graph = graph
            layer._replan()

    def _replan(self) -> None:
        self.candidates = self.planner(self)
        self.use(self.candidates[0])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Factorised:
        # A memory format is meant for activations and dense kernels, and torch applies it to four or five dimensions.
        # The first stays, because tensors that several processes share are sharded along it.
        super()._apply(lambda t: fn(t.flatten(1)).view(t.shape) if t.dim() > 2 else fn(t), recurse)
        self.kept.forget()
        return self

    def train(self, mode: bool = True) -> Factorised:
        """Set training or evaluation mode; what was merged is forgotten, because the cores may be others by now."""
        self.kept.forget()
        super().train(mode)
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self.kept.forget()
        super()._load_from_state_dict(*args, **options)

    def tensors(self) -> list[nn.Parameter]:
        """The cores in the graph's order, made anew where hooks do so before a call, as those of prune."""
        for hook in tuple(self.cores._forward_pre_hooks.values()):
            hook(self.cores, ())
        return [self.cores[core.name] for core in self.graph.cores]

    def contract(
        self,
        x: Tensor,
        weights: Sequence[Tensor] | None = None,
        shape: Sequence[int] | None = None,
        convolution: Convolution | None = None,
    ) -> Tensor:
        """Images ``(b, in, [z,] y, x)`` or rows ``(b, in)`` with the cores, or what is merged of them, and the bias.

        ``shape``: what the layer was given, where that is not ``x``; ``convolution``: in place of the layer's own.
        """
        if weights is None and self.infers(x):
            plan, merged = self._inferring(shape or x.shape)
            if convolution is None and isinstance(plan, Plan) and (shape is None or shape == x.shape):
                self.kept.keep_pass(x.shape, plan.by(merged))
            return _moving(plan, convolution).apply(x, merged, self.bias)
        plan = _moving(self.plan, convolution)
        call, tensors = (plan, self.tensors()) if weights is None else (plan.apply, weights)
        if self.checkpoint and torch.is_grad_enabled():
            # Nothing in a plan is random.
            return checkpoint(call, x, tensors, self.bias, use_reentrant=False, preserve_rng_state=False)
        return call(x, tensors, self.bias)

    def known_pass(self, x: Tensor) -> Pass | None:
        """How the last input of this shape was contracted, if it was inferred from and the cores are what they were."""
        return None if self.training else self.kept.known_pass(x, self._stored())

    def infers(self, x: Tensor) -> bool:
        """Whether what is merged of the cores may be kept after this input; where not, nothing is kept from before."""
        if self.keeps and not self.training and infers(x):
            return True
        self.kept.forget()
        return False

    def merged(self, plan: Plan | Lookup) -> list[Tensor]:
        """What the calls of a plan multiply with, in the type that autocast computes in, kept."""
        cores = self._stored()
        dtype = computed(cores[0])

        def make() -> list[Tensor]:
            with uncast(cores[0]):  # once is cheap enough to be exact
                return [weight.detach().to(dtype) for weight in plan.weights(cores)]

        return self.kept.get(cores, (plan.path.terms, dtype), make)

    def _inferring(self, shape: Sequence[int]) -> tuple[Plan | Lookup, list[Tensor]]:
        """The plan for inputs of this shape where merging costs nothing, and what its calls multiply with.
        Batches up to a power of two share them."""
        cores, (rows, *rest) = self._stored(), shape
        batch = 1 << (rows - 1).bit_length() if rows > 1 else 1

        def make() -> tuple[Plan | Lookup, list[Tensor]]:
            usual = self.planner.plan if self.planner.plan == "contract" else "model"
            planner = replace(self.planner, input_shape=(1, *rest), batch_size=batch, plan=usual, uses=math.inf)
            plan = self.compiled(planner(self)[0])
            return plan, self.merged(plan)

        return self.kept.get(cores, (batch, *rest, computed(cores[0])), make)

    def _stored(self) -> Sequence[Tensor]:
        """``tensors()`` without the cost of asking a module for each: layers of one image take microseconds."""
        stored = vars(self._modules["cores"])["_parameters"]
        try:
            return [stored[core.name] for core in self.graph.cores]
        except KeyError:  # pruned, or computed from other parameters
            return self.tensors()

    def reset_parameters(self) -> None:
        """Begin again: a bias, and a weight that is then held as new cores, as torch draws the dense layer's."""
        dense: Any = self.plain()
        dense.reset_parameters()
        with torch.no_grad():
            self.redraw(dense.weight)
            if self.bias is not None:
                self.bias.copy_(dense.bias)

    def redraw(self, weight: Tensor) -> None:
        """Hold a new dense ``weight`` of random entries, as ``values.drawn`` does."""
        with torch.no_grad():
            for core, value in zip(self.tensors(), drawn(self.format, self.graph, weight), strict=True):
                core.copy_(value)

    def to_dense(self) -> Tensor:
        """The reconstructed weight, in the shape of the dense layer's."""
        weight = to_dense(self.graph, self.tensors())
        return weight.transpose(0, 1) if self.transposed else weight

    @property
    def weight(self) -> Tensor:
        """``to_dense()``, for code that reads the weight of torch's own layers; kept while the layer only infers.

        In the type that it is stored in: torch's functions take it as they take parameters.
        """
        cores = self.tensors()
        with uncast(cores[0]):
            return self.kept.get(cores, "whole", self.to_dense) if self.infers(cores[0].detach()) else self.to_dense()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":
            raise AttributeError(
                "a weight held as cores cannot be set: write to the cores, or set the dense layer's before compress"
            )
        if name in vars(self).get("_settled", ()):
            raise AttributeError(f"{name} of a layer held as cores is settled: set the dense layer's before compress")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        ranks = ", ".join(f"{bond}={size}" for bond, size in self.graph.ranks.items())
        return f"{'x'.join(map(str, self.weight_shape))}, {ranks}"


def _moving(plan: Plan | Lookup, convolution: Convolution | None) -> Plan | Lookup:
    return plan.moving(convolution) if convolution is not None and isinstance(plan, Plan) else plan
