"""How one layer will be held: its format, layout and rank, and the graph they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from typing import cast

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ..config.schema import MethodConfig
from ..layers.base import Factorised
from ..layers.conv import FactorisedConv2d
from ..layers.linear import FactorisedLinear, FeatureMapLinear, StepLinear
from ..tensor.build import build, with_rank
from ..tensor.contraction.path import Geometry
from ..tensor.contraction.search import PLANS
from ..tensor.errors import ConfigError
from ..tensor.fitting.initial import INITS
from ..tensor.formats import Format, find_format
from ..tensor.graph import Graph
from ..tensor.rank import Budget, LayerRank, Rank, Reference
from .plans import layer_geometry
from .trace import Inputs


@dataclass
class Swap:
    """A layer that is to be swapped: how its weight will be held, and its rank, its own or the network's.

    ``graph``: of rank one until the ranks are set; ``cores``: their values, where they are known.
    """

    name: str
    layer: nn.Conv2d | nn.Linear
    inputs: Inputs
    method: MethodConfig
    format: Format
    rank: Rank
    graph: Graph
    cores: Mapping[str, torch.Tensor] | None = None

    def stays_dense(self, graph: Graph) -> bool:
        """Whether the cores of ``graph`` would hold no fewer entries than the weight, and may not."""
        may = self.method.allow_larger or self.cores is not None
        return graph.parameters >= graph.dense_parameters and not may

    def parameters(self, graph: Graph) -> int:
        """Entries of the layer's weight, held as ``graph`` or dense."""
        return graph.dense_parameters if self.stays_dense(graph) else graph.parameters

    def geometry(self, new: Factorised, batch_size: int) -> Geometry:
        """What the planner sees of ``new``, a layer that this swap makes: the first of its inputs."""
        shape, calls = next(iter(self.inputs.items()))
        return replace(layer_geometry(new, shape, batch_size), uses=calls if isinstance(self.layer, StepLinear) else 1)

    def module(self, cores: Sequence[torch.Tensor]) -> Factorised:
        """The layer that holds these cores."""
        if isinstance(self.layer, nn.Conv2d):
            return FactorisedConv2d(self.format.name, self.graph, cores, self.layer)
        return FactorisedLinear(self.format.name, self.graph, self.layer.weight.shape, cores, self.layer.bias)


def swap_for(
    name: str,
    layer: nn.Conv2d | nn.Linear,
    inputs: Inputs,
    method: MethodConfig,
    rank: Rank,
    own: Mapping[str, LayerRank],
    cores: Mapping[str, torch.Tensor] | None,
) -> Swap | None:
    """How a layer will be held, its ranks set unless they follow from a budget; None if it stays dense.

    ``own``: the ranks that layers have instead of ``rank``, by their pattern in ``method.layers``.
    """
    if isinstance(layer, FeatureMapLinear):
        sides = [size for size in layer.feature_map if size > 1]  # a map of one pixel has channels only
        method = replace(method, layout="split", in_modes=sides or [1], out_modes=[layer.out_features])
    method, rank = _for_layer(name, method, rank, own)
    format = find_format((method.conv if isinstance(layer, nn.Conv2d) else method.linear) or method.format)
    if not format.factorised:
        return None
    if method.init is not None and method.init not in INITS:
        raise ConfigError(f"unknown init '{method.init}', known: {', '.join(INITS)}")
    if method.plan not in PLANS:
        raise ConfigError(f"unknown plan '{method.plan}', known: {', '.join(PLANS)}")
    if isinstance(rank, Budget) and rank.kind == "macs" and method.plan == "model":
        method = replace(method, plan="contract")  # a weight that is put together costs its dense MACs at any rank
    chosen = method
    if method.layout is None:
        method = replace(method, layout=_layout(layer, format, rank, method))
    graph = build_graph(layer.weight.shape, format, method)
    swap = Swap(name, layer, inputs, method, format, rank, graph, cores)
    if cores is not None:
        swap.graph = _held(swap, chosen, cores)
    elif not isinstance(rank, Budget):
        swap.graph = with_rank(graph, format, rank, layer.weight.shape, layer.weight)
    return swap


def _layout(layer: nn.Module, format: Format, rank: Rank, method: MethodConfig) -> str | None:
    """The layout of a layer that is asked for none, where it is not the format's usual one."""
    if isinstance(rank, Reference):
        return format.reference_layout if isinstance(layer, nn.Conv2d) else None
    by_size = isinstance(rank, Budget) and rank.kind != "macs"
    if not by_size or method.init == "fit" or method.in_modes or method.out_modes:
        return None
    # By channels all that a layer says passes a few of them; in pairs of modes its matrix has full rank, and at equal
    # size it trains better. A trained weight is fitted better by channels: few of them matter, and nothing pairs them.
    return "paired"


def _held(swap: Swap, chosen: MethodConfig, cores: Mapping[str, torch.Tensor]) -> Graph:
    """The graph that these cores are of: as they would be held now, or as any rank or init may have held them.

    Raises ``ConfigError`` if they are of neither.
    """
    layouts = (swap.method.layout, *((None, "paired") if chosen.layout is None else ()))
    errors = []
    for layout in dict.fromkeys(layouts):
        try:
            graph = build_graph(swap.layer.weight.shape, swap.format, replace(chosen, layout=layout))
            return _sized(graph, cores)
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


def _for_layer(name: str, method: MethodConfig, rank: Rank, own: Mapping[str, LayerRank]) -> tuple[MethodConfig, Rank]:
    """The method and rank of one layer, after the overrides whose pattern it matches."""
    for pattern, changes in method.layers.items():
        if fnmatch(name, pattern):
            rank = own.get(pattern, rank)
            changes = {key: value for key, value in changes.items() if key != "rank"}
            known = {f.name for f in fields(MethodConfig)} - {"layers", "conv", "linear", "decay"}
            unknown = sorted(set(changes) - known)
            if unknown:
                raise ConfigError(f"unknown key {', '.join(unknown)} in method.layers, known: rank, {', '.join(known)}")
            if "format" in changes:
                changes |= {"conv": None, "linear": None}
            try:
                schema = OmegaConf.structured(replace(method, layers={}))  # ranks in there would be foreign to it
                method = cast(MethodConfig, OmegaConf.to_object(OmegaConf.merge(schema, changes)))
            except OmegaConfBaseException as error:
                raise ConfigError(f"method.layers.{pattern}.{error.full_key}: {str(error).splitlines()[0]}") from None
    return method, rank


def build_graph(weight_shape: Sequence[int], format: Format, method: MethodConfig) -> Graph:
    """The format's graph for a dense weight of torch's shape, every bond at size one."""
    return build(weight_shape, format, method.layout, method.kernel, method.factors, method.in_modes, method.out_modes)
