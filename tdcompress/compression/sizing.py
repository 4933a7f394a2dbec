"""The ranks of a whole network's layers, set so that it meets a budget of parameters or MACs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..layers.kinds import dense_macs
from ..tensor.caps import absorbed
from ..tensor.contraction.cost import Rates
from ..tensor.contraction.search import paths
from ..tensor.errors import ConfigError
from ..tensor.graph import Core, Graph
from ..tensor.rank import Budget
from . import adaptive
from .budget import Count, Unreachable, fit
from .plans import path_macs
from .spec import Swap
from .trace import Inputs

_SHUNNED = 10


def meet(
    budget: Budget, model: nn.Module, swaps: Sequence[Swap], inputs: Mapping[str, Inputs], batch_size: int
) -> None:
    """Set the ranks of those ``swaps`` that have none of their own so that the whole network meets the budget."""
    if budget.kind == "macs" and any(swap.method.plan == "measure" for swap in swaps):
        raise ConfigError(f"rank={budget} counts along plans that no measurement changes: use method.plan=model")
    free = [swap for swap in swaps if isinstance(swap.rank, Budget)]
    own = [swap for swap in swaps if swap not in free]
    if budget.kind == "macs":
        all_macs = {name: dense_macs(model.get_submodule(name), given) for name, given in inputs.items()}
        whole, dense = sum(all_macs.values()), {swap.name: all_macs[swap.name] for swap in swaps}
        kept = sum(_macs(swap, batch_size)(swap.graph) for swap in own)
    else:
        whole = sum(p.numel() for p in model.parameters())
        dense = {swap.name: swap.layer.weight.numel() for swap in swaps}
        kept = sum(swap.parameters(swap.graph) for swap in own)
    target = whole * budget.value if budget.kind == "macs" else budget.parameters(whole)
    if budget.adaptive and target >= whole:
        raise ConfigError(f"rank={budget} leaves nothing to cut while training: the dense network has {whole:,}")

    def planned(graphs: Sequence[Graph]) -> Count:
        if budget.kind != "macs":
            return lambda k, graph: free[k].parameters(graph if budget.adaptive else absorbed(graph))
        return _MacsAlong(free, [absorbed(graph) for graph in graphs], batch_size)

    def started(graphs: Sequence[Graph]) -> Count:
        # A layer that starts dense stays dense, so that none is let be before all others are.
        return lambda k, graph: free[k].parameters(graph) * (_SHUNNED if free[k].stays_dense(graph) else 1)

    def fitted(target: float, planned: Callable[[Sequence[Graph]], Count]) -> list[Graph]:
        fixed = whole - sum(dense.values()) + kept
        return fit([swap.graph for swap in free], planned, [dense[swap.name] for swap in free], fixed, target)

    try:
        graphs = fitted(target, planned)
        if budget.adaptive:  # which ends at the target
            graphs = fitted(adaptive.start(target, whole), started)
    except Unreachable as error:
        totals = (error.smallest, error.largest, error.nearest)
        smallest, largest, nearest = (budget.said(total, whole) for total in totals)
        raise ConfigError(
            f"rank={budget} cannot be met within 2 %: the smallest ranks give {smallest}, the largest {largest}, "
            f"the nearest found {nearest}"
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


def _macs(swap: Swap, batch_size: int) -> Callable[[Graph], int]:
    """Counts the MACs per image of a layer along the path that is planned for its present ranks."""
    dense = dense_macs(swap.layer, swap.inputs)
    if isinstance(swap.layer, nn.Conv2d) and swap.layer.groups > 1:  # the weight is reconstructed
        return lambda graph: dense
    new = swap.module([torch.empty(swap.graph.shape(core), device="meta") for core in swap.graph.cores])
    path = paths(swap.graph, swap.geometry(new, batch_size), Rates(), swap.method.plan)[0]
    return lambda graph: dense if swap.stays_dense(graph) else path_macs(graph, path, new, swap.inputs)
