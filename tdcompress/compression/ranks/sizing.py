"""The ranks of a whole network's layers, set so that it meets a budget of parameters or MACs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ...layers.base import Factorised
from ...layers.kinds import weights_once
from ...tensor.caps import absorbed
from ...tensor.contraction.cost import Rates
from ...tensor.errors import ConfigError
from ...tensor.graph import Core, Graph
from ...tensor.rank import Budget
from ..spec import Swap
from ..survey.counts import distinct, why_dense
from ..survey.plans import dense_macs, layer_macs, path_macs
from ..survey.trace import Trace
from . import adaptive
from .budget import Count, Planned, Unreachable, divided, fit
from .scales import passes, roomy

_SHUNNED = 10
_COMPONENTS = (4, 8, 2, 3, 1)
"""How many components of each bond adaptive ranks end with, about, where the factors of channels are open: the first
that can be had with more than one number passing a component of the largest weight, or else the first."""
_NAMED = 3  # of the layers that stand in the way of a budget


def heavy(budget: Budget, model: nn.Module, seen: Trace) -> list[str]:
    """The layers whose dense weights take a tenth of a budget of parameters or more.

    Of one of MACs none: a first convolution takes many, and has too few channels for ranks that save them.
    """
    if budget.kind == "macs":
        return []
    limit = budget.parameters(_as_dense(model)) / 10
    return [name for name in seen.inputs if distinct(model.get_submodule(name).parameters(recurse=False)) >= limit]


def rooms(budget: Budget, model: nn.Module, weights: Mapping[str, int]) -> dict[str, float]:
    """About how many parameters each of these ``weights`` will have, given by how many it has; of MACs unknown."""
    if budget.kind == "macs":
        return {}
    room = budget.parameters(_as_dense(model)) - distinct(model.parameters()) + sum(weights.values())
    return dict(zip(weights, divided(room, list(weights.values())), strict=True))


def _as_dense(model: nn.Module) -> int:
    """How many parameters the dense network has, of which an earlier call may hold layers as cores."""
    graphs = [layer.graph for layer in weights_once(model).values()]
    return distinct(model.parameters()) + sum(graph.dense_parameters - graph.parameters for graph in graphs)


def meet(
    budget: Budget,
    model: nn.Module,
    swaps: Sequence[Swap],
    seen: Trace,
    left: Mapping[str, str],
    batch_size: int,
    multiple: int = 1,
) -> None:
    """Set the ranks of those ``swaps`` that have none of their own so that the whole network meets the budget.

    ``left``: why other layers stay dense; what stands in the way of a budget that cannot be met is named with it.
    ``multiple``: of what larger ranks are multiples where that is possible, a power of two.
    """
    if multiple < 1 or multiple & (multiple - 1):
        raise ConfigError(f"rank_multiple={multiple} must be a power of two: 1, 2, 4, 8, ...")
    if budget.kind == "macs" and any(swap.method.plan == "measure" for swap in swaps):
        raise ConfigError(f"rank={budget} counts along plans that no measurement changes: use plan=model")
    free = [swap for swap in swaps if isinstance(swap.rank, Budget)]
    own = [swap for swap in swaps if swap not in free]
    held = {name: layer for name, layer in weights_once(model).items() if name in seen.inputs}  # by an earlier call
    if budget.kind == "macs":
        dense = {swap.name: seen.macs.get(swap.name, 0) for swap in swaps}
        kept = sum(_macs(swap, dense[swap.name], batch_size)(swap.graph) for swap in own)
        saved = sum(dense_macs(one, seen.inputs[n]) - layer_macs(one, seen.inputs[n]) for n, one in held.items())
        present = sum(seen.macs.values()) + sum(layer_macs(one, seen.inputs[n]) for n, one in held.items())
    else:
        dense = {swap.name: swap.weight.numel() for swap in swaps}
        kept = sum(swap.parameters(swap.graph) for swap in own)
        present = distinct(model.parameters())
        saved = _as_dense(model) - present
    whole = present + saved
    target = whole * budget.value if budget.kind == "macs" else budget.parameters(whole)
    if budget.adaptive and target >= whole:
        raise ConfigError(f"rank={budget} leaves nothing to cut while training: the dense network has {whole:,}")

    def planned(graphs: Mapping[int, Graph]) -> Count:
        if budget.kind != "macs":
            return lambda k, graph: free[k].parameters(graph if budget.adaptive else absorbed(graph))
        return _MacsAlong(free, dense, graphs, batch_size, not budget.adaptive)

    fixed, costs = present - sum(dense.values()) + kept, [dense[swap.name] for swap in free]
    try:
        if budget.adaptive:
            graphs = _beginning(free, planned, costs, fixed, target, multiple)
        else:
            graphs = fit([swap.family for swap in free], planned, costs, fixed, target, multiple)
    except Unreachable as error:
        totals = (error.smallest, error.largest, error.nearest)
        smallest, largest, nearest = (budget.said(total, whole) for total in totals)
        way = _in_the_way(budget, model, seen, left, dense) if error.smallest > target else ""
        raise ConfigError(
            f"rank={budget} cannot be met within 2 %: the smallest ranks give {smallest}, the largest {largest}, "
            f"the nearest found {nearest}{way}"
        ) from error
    for swap, graph in zip(free, graphs, strict=True):
        swap.graph = graph if budget.adaptive else absorbed(graph)  # a bond that is to be cut must be there


def _beginning(
    free: Sequence[Swap],
    planned: Planned,
    costs: Sequence[float],
    fixed: int,
    target: float,
    multiple: int,
) -> list[Graph]:
    """Graphs to begin with, whose bonds can be cut until they meet the target; raises ``Unreachable``."""
    families = _to_cut(free, planned, costs, fixed, target, multiple)
    # A layer that starts dense stays dense, so that none is let be before all others are that can be smaller.
    shunned = [1 if swap.stays_dense(least) else _SHUNNED for swap, (least,) in zip(free, families, strict=True)]

    def started(graphs: Mapping[int, Graph]) -> Count:
        count = planned(graphs)
        return lambda k, graph: count(k, graph) * (shunned[k] if free[k].stays_dense(graph) else 1)

    begin = adaptive.start(target, fixed + sum(costs))
    try:
        return fit(families, started, costs, fixed, begin, multiple)
    except Unreachable:  # not to be met exactly, but there must be something to cut
        return fit(families, started, costs, fixed, begin, tolerance=1 - target / begin)


def _to_cut(
    free: Sequence[Swap], planned: Planned, costs: Sequence[float], fixed: int, target: float, multiple: int
) -> list[list[Graph]]:
    """Of each a graph whose ranks meet the target with as many components as ``_COMPONENTS`` says, of rank one.

    Raises ``Unreachable`` where no ranks of such graphs do.
    """
    choosing = [k for k, swap in enumerate(free) if len(swap.family) > 1]
    largest = max(choosing, key=lambda k: free[k].weight.numel(), default=None)
    first: list[list[Graph]] | None = None
    for components in _COMPONENTS:
        shares = [end / cost for end, cost in zip(divided((target - fixed) / components, costs), costs, strict=True)]
        found = [[roomy(swap.family, share * swap.weight.numel())] for swap, share in zip(free, shares, strict=True)]
        try:
            fit(found, planned, costs, fixed, target, multiple)
        except Unreachable:
            if components == _COMPONENTS[-1] and first is None:
                raise
            continue
        if largest is None or passes(found[largest][0])[0] > 1:
            return found
        first = first or found
    assert first is not None
    return first


def _in_the_way(budget: Budget, model: nn.Module, seen: Trace, left: Mapping[str, str], swaps: Collection[str]) -> str:
    """What takes most of a budget that is too small: the largest of the weights that stay dense, and why."""
    costs: dict[str, int] = {}
    for name, module in model.named_modules():
        if name not in swaps and not isinstance(module, Factorised):
            entries = distinct(module.parameters(recurse=False))
            costs[name] = seen.macs.get(name, 0) if budget.kind == "macs" else entries
    reasons = {name: left.get(name) or why_dense(name, model.get_submodule(name), seen) for name in costs}
    named = sorted((name for name, cost in costs.items() if cost and reasons[name]), key=lambda name: -costs[name])
    said = [f"{name or 'the model itself'} ({costs[name]:,}: {reasons[name]})" for name in named[:_NAMED]]
    return f"; dense stay {', '.join(said)}{', ..' * (len(named) > _NAMED)}" if said else ""


class _MacsAlong:
    """Counts MACs along the paths planned for ``graphs``; for other cores than theirs, along one planned for them.

    ``absorbing``: of the graphs without their square cores, as they are held in the end.
    """

    def __init__(
        self,
        swaps: Sequence[Swap],
        dense: Mapping[str, int],
        graphs: Mapping[int, Graph],
        batch_size: int,
        absorbing: bool,
    ) -> None:
        self.swaps, self.dense, self.batch_size, self.absorbing = swaps, dense, batch_size, absorbing
        self.counts: dict[tuple[int, tuple[Core, ...]], Callable[[Graph], int]] = {}
        for k, graph in graphs.items():
            self(k, graph)

    def __call__(self, k: int, graph: Graph) -> int:
        graph = absorbed(graph) if self.absorbing else graph
        if (k, graph.cores) not in self.counts:
            swap = replace(self.swaps[k], graph=graph)
            self.counts[k, graph.cores] = _macs(swap, self.dense[swap.name], self.batch_size)
        return self.counts[k, graph.cores](graph)


def _macs(swap: Swap, dense: int, batch_size: int) -> Callable[[Graph], int]:
    """Counts the MACs per image of a layer, ``dense`` of them dense, along the path planned for its present ranks."""
    cores = [torch.empty(swap.graph.shape(core), device="meta") for core in swap.graph.cores]
    new = swap.module(cores, batch_size, Rates())
    put_together = new.reconstructs
    return lambda graph: dense if put_together or swap.stays_dense(graph) else path_macs(new, swap.inputs, graph)
