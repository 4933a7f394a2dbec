"""How one layer will be held: its format, layout and rank, and the graph they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..config.overrides import for_layer
from ..config.schema import MethodConfig
from ..config.targets import Target
from ..device.rates import device_rates
from ..layers.base import Factorised, Planner
from ..layers.kinds import Kind
from ..tensor.build import build, family, with_rank
from ..tensor.caps import capped
from ..tensor.contraction.cost import Rates
from ..tensor.contraction.search import PLANS
from ..tensor.errors import ConfigError
from ..tensor.fitting.decompose import Algorithm, own
from ..tensor.fitting.initial import FITTED, INITS, OF_TRAINED
from ..tensor.formats import Format, find_format
from ..tensor.graph import Graph
from ..tensor.layout import KERNELS
from ..tensor.rank import Budget, Energy, LayerRank, Rank, Reference
from ..tensor.weight import checked
from .survey.trace import Inputs

FITS: dict[str, Callable[[Format], Algorithm]] = {
    "tdcompress": lambda format: own,
    "tensorly": Target("tdcompress.compression.tensorly.fitting.algorithm"),
}
"""Whose algorithms fit weights, by ``MethodConfig.fit``: from a format to the one for its cores."""

_FEW = 8
"""Ranks of a matrix below which a trained layer learns worse than with its channels split."""

_FROM_TENSORLY = Target("tdcompress.compression.tensorly.objects.from_tensorly")


@dataclass
class Swap:
    """A layer that is to be swapped: how its weight will be held, and its rank, its own or the network's.

    ``graph``: of rank one until the ranks are set; ``family``: all of rank one that a budget may choose from, or a
    share of the weight's norm, which takes the smallest; ``cores``: their values, where they are known; ``layout``: its
    name, and the reason where a rule chose it.
    """

    name: str
    layer: nn.Module
    kind: Kind
    inputs: Inputs
    method: MethodConfig
    format: Format
    rank: Rank
    graph: Graph
    family: tuple[Graph, ...] = ()
    cores: Mapping[str, torch.Tensor] | None = None
    layout: str = ""

    @property
    def weight(self) -> torch.Tensor:
        """The layer's dense weight, ``(out, in, ..)``."""
        return self.kind.outputs_first(self.layer)

    def stays_dense(self, graph: Graph) -> bool:
        """Whether the cores of ``graph`` would hold no fewer entries than the weight, and may not."""
        may = self.method.allow_larger or self.cores is not None
        return graph.parameters >= graph.dense_parameters and not may

    def parameters(self, graph: Graph) -> int:
        """Entries of the layer's weight, held as ``graph`` or dense."""
        return graph.dense_parameters if self.stays_dense(graph) else graph.parameters

    def module(self, cores: Sequence[torch.Tensor], batch_size: int, rates: Rates) -> Factorised:
        """The layer that holds these cores, planned for the first of its inputs."""
        shape, calls = next(iter(self.inputs.items()))
        planner = Planner(shape, batch_size, rates, self.method.plan, calls if self.kind.once else 1)
        return self.kind.held(self.layer, self.format.name, self.graph, cores, planner)

    def held(self, cores: Sequence[torch.Tensor], batch_size: int, rates: Rates | None) -> Factorised:
        """The layer with these cores, planned for a device of these ``rates``, by default its own."""
        weight = self.weight
        rates = rates or device_rates(weight.device, weight.dtype)
        new = self.module([core.to(weight) for core in cores], batch_size, rates)
        new.cores.requires_grad_(self.kind.weight(self.layer).requires_grad)
        new.checkpoint, new.layout = self.method.checkpoint, self.layout
        return new


def swap_for(
    name: str,
    layer: nn.Module,
    kind: Kind,
    inputs: Inputs,
    method: MethodConfig,
    rank: Rank,
    ranks: Mapping[str, LayerRank],
    given: Any = None,
    room: float = math.inf,
) -> Swap | None:
    """How a layer will be held, its ranks set unless they follow from a budget; None if its format is dense.

    ``ranks``: those that layers have instead of ``rank``, by their pattern in ``method.layers``; ``given``: its cores,
    by name or as an object of tensorly, if there are any; ``room``: how many parameters a budget has for it, about.
    """
    weight, convolves = kind.outputs_first(layer), bool(kind.weights[0].axes)
    if kind.weights[0].sites is not None:
        method = replace(method, **kind.weights[0].sites(layer))
    method, rank = for_layer(name, method, rank, ranks)
    format = find_format((method.conv if convolves else method.linear) or method.format)
    if not format.factorised:
        return None
    if method.init is None and rank.needs_weights:
        method = replace(method, init="fit")
    if method.init is not None and method.init not in INITS:
        raise ConfigError(f"unknown init '{method.init}', known: {', '.join(INITS)}")
    if method.plan not in PLANS:
        raise ConfigError(f"unknown plan '{method.plan}', known: {', '.join(PLANS)}")
    if given is None:
        _refuse_fit(method, format)
    if isinstance(rank, Budget) and rank.kind == "macs" and method.plan == "model":
        method = replace(method, plan="contract")  # a weight that is put together costs its dense MACs at any rank
    layout, reason = _layout(weight.shape, format, rank, method, room)
    cores: Mapping[str, torch.Tensor] | None = None
    if given is not None and not _are_cores(given):
        (graph, cores), method = _taken(weight, format, method, given)
        layout, reason = method.layout, ""
    elif given is not None:
        cores = {core: _value(core, value) for core, value in given.items()}
        graph, held = _held(weight.shape, format, method, layout, given)
        layout, reason = held, reason if held == layout else ""
    else:
        graph = build_graph(weight.shape, format, replace(method, layout=layout))
    said = f"{layout or format.usual(weight.shape)}{reason and f' ({reason})'}"
    method = replace(method, layout=layout)
    chooses = isinstance(rank, Budget | Energy) and cores is None
    graphs = build_family(weight.shape, format, method) if chooses else (graph,)
    swap = Swap(name, layer, kind, inputs, method, format, rank, graph, graphs, cores, said)
    if cores is None and not isinstance(rank, Budget):
        swap.graph = _smallest(swap, rank)
    return swap


def _smallest(swap: Swap, rank: LayerRank) -> Graph:
    """Of the graphs that a layer may be held as, at this rank, the one with the fewest parameters."""
    best: Graph | None = None
    for graph in sorted(swap.family, key=lambda graph: graph.parameters):
        if best is None or graph.parameters < best.parameters:  # at rank one, or it cannot be smaller
            found = with_rank(graph, swap.format, rank, swap.weight.shape, swap.weight)
            best = found if best is None else min(best, found, key=lambda graph: graph.parameters)
    assert best is not None
    return best


def _layout(
    weight_shape: Sequence[int], format: Format, rank: Rank, method: MethodConfig, room: float
) -> tuple[str | None, str]:
    """The layout of a layer, None for the format's usual one, and why where neither was asked for.

    By channels all that a layer says passes a few of them; in pairs of modes its matrix has full rank, and at equal
    size it trains better. A trained weight is fitted better by channels: few of them matter, and nothing pairs them.
    Linear ones in whose ``room`` next to nothing would pass are split, as are rings: few budgets meet their products.
    """
    if method.layout is not None or method.in_modes or method.out_modes:
        return method.layout, ""
    convolves = len(weight_shape) > 2
    if isinstance(rank, Reference):
        return format.reference_layout if convolves else None, ""
    chosen, reason = None, ""
    if method.init in OF_TRAINED and (isinstance(rank, Budget) or rank.needs_weights):
        chosen, reason = "channels", "its weight is fitted"
        if (method.factors or 1) > 1 and "channels" in format.layouts:
            chosen, reason = "split", "its weight is fitted, and factors are given"
        elif not convolves and _narrow(weight_shape, format, method, room):
            chosen, reason = "split", "its weight is fitted, and by channels too few numbers would pass"
    elif isinstance(rank, Budget) and rank.kind != "macs":
        chosen, reason = "paired", "a budget of parameters, and its weight is not fitted"
    return (chosen, reason) if chosen in (None, *format.layouts) else (None, "")


def _narrow(weight_shape: Sequence[int], format: Format, method: MethodConfig, room: float) -> bool:
    """Whether a matrix by channels has no ``room`` for ranks of ``_FEW``, or half of its own, or a product as rank."""
    if "channels" not in format.layouts:
        return False
    graph = build_graph(weight_shape, format, replace(method, layout="channels"))
    product = len(set(graph.carriers.values())) < len(graph.carriers)  # of several bonds between the same cores
    return product or capped(graph, dict.fromkeys(graph.bonds, min(_FEW, min(weight_shape) // 2))).parameters > room


def _refuse_fit(method: MethodConfig, format: Format) -> None:
    """Raise ``ConfigError`` for a ``fit`` that there is not, that has no such format, or that nothing is fitted by."""
    if method.fit not in FITS:
        raise ConfigError(f"unknown fit '{method.fit}', known: {', '.join(FITS)}")
    init = method.init or format.init
    if method.fit != MethodConfig.fit and init not in FITTED:
        raise ConfigError(f"fit={method.fit} says what fits a weight, init={init} fits none: use init=fit")
    FITS[method.fit](format)


def _are_cores(given: Any) -> bool:
    return isinstance(given, Mapping | nn.ParameterDict) and all(isinstance(name, str) for name in given)


def _value(core: str, value: Any) -> torch.Tensor:
    """A core that was given. Raises ``ConfigError`` for what is no tensor of finite numbers."""
    if not isinstance(value, torch.Tensor):
        raise ConfigError(f"cores: {core} is a {type(value).__name__}, not a tensor")
    return checked(value)


def _taken(
    weight: torch.Tensor, format: Format, method: MethodConfig, given: Any
) -> tuple[tuple[Graph, dict[str, torch.Tensor]], MethodConfig]:
    """The graph and the cores of an object of tensorly, and the method with the kernel that its dimensions are of.

    The layout is the method's or the format's usual one, whatever the rank. Raises ``ConfigError`` for other objects.
    """
    usual = method.kernel or format.kernel
    errors = []
    for kernel in dict.fromkeys((usual, *(KERNELS if method.kernel is None and weight.dim() > 2 else ()))):
        one = replace(method, kernel=kernel)
        try:
            graph, cores = _FROM_TENSORLY(build_graph(weight.shape, format, one), format, given, weight)
        except ConfigError as error:
            errors.append(error)
        else:
            return (graph, dict(zip([core.name for core in graph.cores], cores, strict=True))), one
    raise errors[0]


def _held(
    weight_shape: Sequence[int],
    format: Format,
    method: MethodConfig,
    layout: str | None,
    cores: Mapping[str, torch.Tensor],
) -> tuple[Graph, str | None]:
    """The graph that these cores are of, and its layout: as they would be held now, or as any rank or init may have.

    Raises ``ConfigError`` if they are of neither.
    """
    others = ("channels", "split", "paired", None) if method.layout is None else ()
    errors = []
    for one in dict.fromkeys((layout, *others)):
        try:
            held = replace(method, layout=one)
            graphs = dict.fromkeys((build_graph(weight_shape, format, held), *build_family(weight_shape, format, held)))
        except ConfigError as error:
            errors.append(error)
            continue
        for graph in graphs:
            try:
                return _sized(graph, cores), one
            except ConfigError as error:
                errors.append(error)
    raise errors[0]


def _sized(graph: Graph, cores: Mapping[str, torch.Tensor]) -> Graph:
    """The graph with the bond sizes of these cores, and without those that a budget may have absorbed.

    Raises ``ConfigError`` unless they are cores of it.
    """
    shapes = {name: tuple(core.shape) for name, core in cores.items()}
    while gone := [core for core in graph.cores if core.name not in shapes and graph.leaf_bond(core)]:
        graph = graph.merged(gone[0])
    sizes = {
        index: size
        for core in graph.cores
        for index, size in zip(core.indices, shapes.get(core.name, ()), strict=False)
        if index in graph.bonds
    }
    graph = graph.with_ranks(sizes)
    wanted = {core.name: graph.shape(core) for core in graph.cores}
    if shapes != wanted:
        raise ConfigError(f"its cores {shapes} are not of this method, which has {wanted} at these ranks")
    return graph


def build_graph(weight_shape: Sequence[int], format: Format, method: MethodConfig) -> Graph:
    """The format's graph for a dense weight of torch's shape, every bond at size one."""
    return build(weight_shape, format, **_arrangement(method))


def build_family(weight_shape: Sequence[int], format: Format, method: MethodConfig) -> tuple[Graph, ...]:
    """All graphs for it that a budget may choose from, see ``tensor.build.family``."""
    return family(weight_shape, format, **_arrangement(method))


def _arrangement(method: MethodConfig) -> dict[str, Any]:
    return {name: getattr(method, name) for name in ("layout", "kernel", "factors", "in_modes", "out_modes")}
