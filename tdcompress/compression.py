"""Walks a model and swaps its convolution and linear layers for factorised ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from . import adaptive
from .budget import Count, Unreachable, fit
from .config import KERNELS, Budget, ConfigError, MethodConfig, listed_ranks, parse_budget, parse_rank
from .formats import FORMATS, Format, find_format
from .inputs import Inputs, input_shapes
from .layers import Factorised, FactorisedConv2d, FactorisedLinear, FeatureMapLinear, dense_macs
from .network.cost import Rates
from .network.graph import Core, Graph, validate
from .network.init import INITS
from .network.layout import arrange
from .network.measure import device_rates
from .network.path import PLANS, paths
from .network.ranks import absorbed, capped
from .network.unfolding import energy, unfolding_ranks
from .network.vbmf import vbmf_rank
from .plans import layer_geometry, path_macs

M = TypeVar("M", bound=nn.Module)

_SHUNNED = 10
_NARROW = 8  # a rank of a matrix below which the same parameters train better over split modes
PLANNING_BATCH = 100  # images the plan is made for, where none are named


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
    rank: int | str
    graph: Graph
    cores: Mapping[str, torch.Tensor] | None = None

    def split(self) -> bool:
        """Split the modes of a layer whose layout is left open; whether they were whole. Its ranks are one then."""
        method = replace(self.method, layout="split")
        graph = build_graph(self.layer.weight.shape, self.format, method)
        if self.method.layout is not None or graph.cores == self.graph.cores:
            return False
        self.method, self.graph = method, graph
        return True

    def stays_dense(self, graph: Graph) -> bool:
        """Whether the cores of ``graph`` would hold no fewer entries than the weight, and may not."""
        may = self.method.allow_larger or self.cores is not None
        return graph.parameters >= graph.dense_parameters and not may

    def parameters(self, graph: Graph) -> int:
        """Entries of the layer's weight, held as ``graph`` or dense."""
        return graph.dense_parameters if self.stays_dense(graph) else graph.parameters


def compress(
    model: M,
    method: str | MethodConfig = "tt",
    rank: int | str | Sequence[int] = 8,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    keep: Sequence[str] | None = None,
    batch_size: int = PLANNING_BATCH,
    rates: Rates | None = None,
    cores: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    **settings: Any,
) -> M:
    """Swap, in place, every ``Conv2d`` and ``Linear`` of ``model`` for one whose weight is held as cores.

    ``method``: a format's name, or a whole ``MethodConfig``; ``settings`` are its further fields (``layout="matrix"``,
    ``kernel="separate"``, ``plan="dense"`` ..). ``input_shape``: one input without the batch dimension; the layers that
    a forward pass of it reaches are swapped. ``keep``: name patterns of layers that stay dense; by default the first
    convolution and the last linear layer. A layer whose cores would hold no fewer entries than its weight stays dense
    too, unless ``allow_larger``. The cores start with the variance that the layer's present weight has, or, with
    ``init="fit"`` and for trained weights, as near to it as can be. Contractions are planned for batches of
    ``batch_size`` and a device of these ``rates``, by default the model's own. Returns the model.

    ``rank``: the bond dimension, a list of one for each bond of a layer, or ``"reference"``. Or what the whole network
    may cost, met to within 2 %: ``"10x"`` (dense parameters / parameters), ``"params:120000"``, ``"macs:0.2"`` (MACs /
    dense MACs, along the plans for the default rates); a layer with a rank of its own in ``layers`` keeps it, the
    others absorb. Where a budget of parameters leaves a matrix a rank below 8, its modes are split, unless a layout is
    given, and no budget keeps square cores (``network.ranks.absorbed``). ``"adaptive:10x"``: the larger network that
    such a training starts with, see ``adaptive``. Or what the present weights need, which says something of trained
    ones only: ``"energy:0.9"``, the smallest ranks that keep this share of the squared norm at every bond, or
    ``"vbmf"`` (Kim et al. 2016). ``cores``: of an equal network, by layer and core; then the layers that it names are
    swapped, no others, and the ranks are those of its shapes.

    Raises ``ConfigError`` for unknown names, for settings that a layer cannot take, naming the layer, and for a budget
    that no ranks meet, with the smallest and the largest that can be reached.
    """
    known = {f.name for f in fields(MethodConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(sorted(known))}")
    method = MethodConfig(method, **settings) if isinstance(method, str) else replace(method, **settings)
    asked = parse_rank(rank)
    formats = [find_format(chosen) for chosen in (method.format, method.conv, method.linear) if chosen is not None]
    inputs = input_shapes(model, input_shape)
    for key, patterns in (("arch.keep", keep or ()), ("method.layers", method.layers), ("cores", cores or ())):
        lost = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in inputs)]
        if lost:
            raise ConfigError(f"{key}: no layer is named {', '.join(lost)}; there are {', '.join(inputs)}")
    kept = kept_layers(list(inputs), model, keep) if cores is None else inputs.keys() - cores.keys()
    swaps = []
    for name, given in inputs.items():
        layer = model.get_submodule(name)
        if name not in kept and isinstance(layer, nn.Conv2d | nn.Linear):
            with _naming(name):
                swap = _swap(name, layer, given, method, asked, cores[name] if cores else None)
            if swap is not None:
                swaps.append(swap)
    budget = parse_budget(str(asked))
    if budget is not None and cores is None and (swaps or any(format.factorised for format in formats)):
        if budget.kind == "macs":
            rates = Rates()  # ranks, and the plans that they were counted along, are the same on every machine
        _meet(budget, model, swaps, inputs, batch_size)
    swapped: dict[str, Factorised] = {}
    for swap in swaps:
        with _naming(swap.name):
            if not swap.stays_dense(swap.graph):
                swapped[swap.name] = _factorised(swap, batch_size, rates)
    for name, new in swapped.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new)
    return model


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"layer {layer}: {error}") from error


def kept_layers(names: Sequence[str], model: nn.Module, keep: Sequence[str] | None) -> set[str]:
    """The layers that stay dense: those matching a pattern, or the first convolution and the last linear layer.

    A last layer whose input is a feature map is there to be factorised.
    """
    if keep is not None:
        return {name for name in names if any(fnmatch(name, pattern) for pattern in keep)}
    layers = {name: model.get_submodule(name) for name in names}
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return {*convolutions[:1], *(name for name in linears[-1:] if not isinstance(layers[name], FeatureMapLinear))}


def build_graph(weight_shape: Sequence[int], format: Format, method: MethodConfig) -> Graph:
    """The format's graph for a dense weight of torch's shape, every bond at size one."""
    kernel = method.kernel or format.kernel
    if kernel not in KERNELS:
        raise ConfigError(f"unknown kernel '{kernel}', known: {', '.join(KERNELS)}")
    if kernel == "open" and not format.open_kernel and len(weight_shape) > 2:
        able = ", ".join(sorted(f.name for f in FORMATS.values() if f.open_kernel))
        raise ConfigError(f"kernel=open needs a format with a central core ({able}), {format.name} has none")
    usual = format.layout if len(weight_shape) > 2 else format.linear_layout or format.layout
    layout = arrange(weight_shape, method.layout or usual, kernel, method.factors, method.in_modes, method.out_modes)
    if format.factorised and len(layout.sites) < 2:
        raise ConfigError(f"layout gives a single site, {format.name} needs two: raise factors")
    cores = tuple(format.topology(layout))
    validate(cores, layout.modes)
    bonds = {index for core in cores for index in core.indices} - set(layout.modes)
    return Graph(cores, layout.modes, {**layout.sizes, **dict.fromkeys(bonds, 1)})


def with_rank(
    graph: Graph, format: Format, rank: int | str, weight_shape: Sequence[int], weight: torch.Tensor | None = None
) -> Graph:
    """The graph at the asked rank, capped. ``reference``: the reference system's, see ``Format.reference_rank``.

    ``4-8``: a size for each bond, in the order of ``graph.bonds``.
    ``vbmf`` and ``energy:0.9``: what the dense ``weight`` needs, see ``network.unfolding`` and ``network.vbmf``.
    """
    if isinstance(rank, int):
        return capped(graph, dict.fromkeys(graph.bonds, rank))
    sizes = listed_ranks(rank)
    if sizes is not None:
        if len(sizes) != len(graph.bonds):
            raise ConfigError(f"rank={rank} has {len(sizes)} sizes, but there are {len(graph.bonds)} bonds")
        return capped(graph, dict(zip(graph.bonds, sizes, strict=True)))
    if rank == "reference":
        channels = (weight_shape[1], weight_shape[0])
        conv = len(weight_shape) > 2
        return capped(graph, {bond: format.reference_rank(channels, bond, conv) for bond in graph.bonds})
    if weight is not None and rank == "vbmf":
        return unfolding_ranks(graph, weight, vbmf_rank)
    if weight is not None and rank.startswith("energy:"):
        return unfolding_ranks(graph, weight, energy(float(rank.removeprefix("energy:"))))
    raise ConfigError(f"rank '{rank}' is not a whole number and not 'reference'")


def _swap(
    name: str,
    layer: nn.Conv2d | nn.Linear,
    inputs: Inputs,
    method: MethodConfig,
    rank: int | str,
    cores: Mapping[str, torch.Tensor] | None,
) -> Swap | None:
    """How a layer will be held, its ranks set unless they follow from a budget; None if it stays dense."""
    if isinstance(layer, FeatureMapLinear):
        sides = [size for size in layer.feature_map if size > 1]  # a map of one pixel has channels only
        method = replace(method, layout="split", in_modes=sides or [1], out_modes=[layer.out_features])
    method, rank = _for_layer(name, method, rank)
    format = find_format((method.conv if isinstance(layer, nn.Conv2d) else method.linear) or method.format)
    if not format.factorised:
        return None
    if method.init is not None and method.init not in INITS:
        raise ConfigError(f"unknown init '{method.init}', known: {', '.join(INITS)}")
    if method.plan not in PLANS:
        raise ConfigError(f"unknown plan '{method.plan}', known: {', '.join(PLANS)}")
    if rank == "reference" and isinstance(layer, nn.Conv2d):
        method = replace(method, layout=method.layout or format.reference_layout)
    graph = build_graph(layer.weight.shape, format, method)
    swap = Swap(name, layer, inputs, method, format, rank, graph, cores)
    if cores is not None:
        try:
            swap.graph = _sized(graph, cores)
        except ConfigError:
            if not swap.split():  # as a budget may have done
                raise
            swap.graph = _sized(swap.graph, cores)
    elif parse_budget(str(rank)) is None:
        swap.graph = with_rank(graph, format, rank, layer.weight.shape, layer.weight)
    return swap


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


def _meet(
    budget: Budget, model: nn.Module, swaps: Sequence[Swap], inputs: Mapping[str, Inputs], batch_size: int
) -> None:
    """Set the ranks of those ``swaps`` that have none of their own so that the whole network meets the budget."""
    if budget.kind == "macs" and any(swap.method.plan == "measure" for swap in swaps):
        raise ConfigError(f"rank={budget} counts along plans that no measurement changes: use method.plan=model")
    free = [swap for swap in swaps if parse_budget(str(swap.rank)) is not None]
    own = [swap for swap in swaps if swap not in free]
    if budget.kind == "macs":
        all_macs = {name: dense_macs(model.get_submodule(name), given) for name, given in inputs.items()}
        whole, dense = sum(all_macs.values()), {swap.name: all_macs[swap.name] for swap in swaps}
        kept = sum(_macs(swap, batch_size)(swap.graph) for swap in own)
    else:
        whole = sum(p.numel() for p in model.parameters() if p.requires_grad)
        dense = {swap.name: swap.layer.weight.numel() for swap in swaps}
        kept = sum(swap.parameters(swap.graph) for swap in own)
    target = whole * budget.value if budget.kind == "macs" else budget.parameters(whole)

    def planned(graphs: Sequence[Graph]) -> Count:
        if budget.adaptive:  # a layer that starts dense stays dense, so that none is let be before all others are
            return lambda k, graph: free[k].parameters(graph) * (_SHUNNED if free[k].stays_dense(graph) else 1)
        if budget.kind != "macs":
            return lambda k, graph: free[k].parameters(absorbed(graph))
        return _MacsAlong(free, [absorbed(graph) for graph in graphs], batch_size)

    def fitted(target: float) -> list[Graph]:
        fixed = whole - sum(dense.values()) + kept
        return fit([swap.graph for swap in free], planned, [dense[swap.name] for swap in free], fixed, target)

    try:
        graphs = fitted(target)
        if budget.kind != "macs":  # those are least, at equal rank, for whole modes
            split = [swap.split() for swap, graph in zip(free, graphs, strict=True) if _narrow(graph)]
            if any(split):
                graphs = fitted(target)
        if budget.adaptive:
            graphs = fitted(adaptive.start(target, whole))
    except Unreachable as error:
        totals = (error.smallest, error.largest, error.nearest)
        smallest, largest, nearest = (budget.said(total, whole) for total in totals)
        faster = "; a layer that is faster reconstructed costs its dense MACs, with method.plan=chain none does"
        raise ConfigError(
            f"rank={budget} cannot be met within 2 %: the smallest ranks give {smallest}, the largest {largest}, "
            f"the nearest found {nearest}"
            + (faster if budget.kind == "macs" and error.smallest < target < error.largest else "")
        ) from error
    for swap, graph in zip(free, graphs, strict=True):
        swap.graph = graph if budget.adaptive else absorbed(graph)  # a bond that is to be cut must be there


class _MacsAlong:
    """Counts MACs along the paths planned for ``graphs``; for other cores than theirs, along one planned for them."""

    def __init__(self, swaps: Sequence[Swap], graphs: Sequence[Graph], batch_size: int) -> None:
        self.swaps, self.batch_size = swaps, batch_size
        self.counts: dict[tuple[int, tuple[Core, ...]], Callable[[Graph], int]] = {}
        for k, graph in enumerate(graphs):
            self(k, graph)

    def __call__(self, k: int, graph: Graph) -> int:
        graph = absorbed(graph)
        if (k, graph.cores) not in self.counts:
            self.counts[k, graph.cores] = _macs(replace(self.swaps[k], graph=graph), self.batch_size)
        return self.counts[k, graph.cores](graph)


def _narrow(graph: Graph) -> bool:
    """Whether the weight is held as a matrix, its modes on two cores, of a rank that lets too little through."""
    holders = [core for core in graph.cores if not set(graph.modes).isdisjoint(core.indices)]
    return len(holders) == 2 and max(graph.ranks.values()) < _NARROW


def _macs(swap: Swap, batch_size: int) -> Callable[[Graph], int]:
    """Counts the MACs per image of a layer along the path that is planned for its present ranks."""
    dense = dense_macs(swap.layer, swap.inputs)
    if isinstance(swap.layer, nn.Conv2d) and swap.layer.groups > 1:  # the weight is reconstructed
        return lambda graph: dense
    new = _module(swap, [torch.empty(swap.graph.shape(core), device="meta") for core in swap.graph.cores])
    path = paths(swap.graph, layer_geometry(new, next(iter(swap.inputs)), batch_size), Rates(), swap.method.plan)[0]
    return lambda graph: dense if swap.stays_dense(graph) else path_macs(graph, path, new, swap.inputs)


def _factorised(swap: Swap, batch_size: int, rates: Rates | None) -> Factorised:
    weight = swap.layer.weight.detach()
    if swap.cores is not None:
        cores = [swap.cores[core.name] for core in swap.graph.cores]
    else:
        cores = INITS[swap.method.init or swap.format.init](swap.graph, weight)
    new = _module(swap, [core.to(weight) for core in cores])
    rates = rates or device_rates(weight.device, weight.dtype)
    geometry = layer_geometry(new, next(iter(swap.inputs)), batch_size)
    new.use_best(partial(paths, geometry=geometry, rates=rates, plan=swap.method.plan))
    new.checkpoint = swap.method.checkpoint
    return new.train(swap.layer.training)


def _module(swap: Swap, cores: Sequence[torch.Tensor]) -> Factorised:
    if isinstance(swap.layer, nn.Conv2d):
        return FactorisedConv2d(swap.format.name, swap.graph, cores, swap.layer)
    return FactorisedLinear(swap.format.name, swap.graph, swap.layer.weight.shape, cores, swap.layer.bias)


def _for_layer(name: str, method: MethodConfig, rank: int | str) -> tuple[MethodConfig, int | str]:
    """The method and rank of one layer, after the overrides whose pattern it matches."""
    for pattern, changes in method.layers.items():
        if fnmatch(name, pattern):
            if not isinstance(changes, dict):
                raise ConfigError(f"method.layers.{pattern}={changes} is not like {{rank: 4}}")
            changes = dict(changes)
            if "rank" in changes:
                rank = parse_rank(changes.pop("rank"))
                if parse_budget(str(rank)) is not None:
                    raise ConfigError(f"rank={rank} is a budget of the whole network, a layer's own is a whole number")
            known = {f.name for f in fields(MethodConfig)} - {"layers", "conv", "linear", "decay"}
            unknown = sorted(set(changes) - known)
            if unknown:
                raise ConfigError(f"unknown key {', '.join(unknown)} in method.layers, known: rank, {', '.join(known)}")
            if "format" in changes:
                changes |= {"conv": None, "linear": None}
            method = replace(method, **changes)
    return method, rank
