"""Norms of the reconstructed weight, from the cores, without forming it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from .contraction.cost import Rates
from .contraction.plan import Contraction, compile_tree
from .contraction.search import greedy_tree
from .graph import Core, Graph
from .weight import uncast

Span = tuple[int, int]
"""Some entries of a mode: the first, and how many."""
RATES = Rates()
_MOST = 1 << 28  # entries of a product on the way to W; where it has more W comes in parts


def squared_norm(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """||W||^2 as a scalar tensor, differentiable.

    The network contracted with a copy of itself over all modes, which forms nothing of W's size at low rank; or the
    squares of W summed, where the cost model finds that cheaper (close to full rank). Planned once for each graph. Of a
    weight that is padded what is never read does not count.
    """
    with uncast(cores[0]):
        if not any(graph.padding):
            return _whole_norm(graph, cores)
        norms = [_whole_norm(part, values) for part, values in _read(graph, cores)]
        return sum(norms[1:], norms[0])


def _whole_norm(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """||W||^2 of all that the modes hold."""
    if not _reconstructs(graph):
        return _doubled(graph)([*cores, *cores])
    if _cheapest(graph).largest > _MOST and any(graph.sizes[mode] > 1 for mode in graph.modes):
        one, other = (_whole_norm(*_part(graph, cores, box)) for box in _halves(graph))
        return one + other
    return _cheapest(graph)(cores).square().sum()


def _read(graph: Graph, cores: Sequence[Tensor]) -> Iterator[tuple[Graph, list[Tensor]]]:
    """The channels of a padded weight that are read, in parts that are networks themselves: some entries of each mode.

    Each part is disjoint with the others, and all together are the weight.
    """
    ranges = [
        [dict(zip(modes, box, strict=True)) for box in _below(count, [graph.sizes[mode] for mode in modes])]
        for modes, count in graph.channels
    ]
    for parts in itertools.product(*ranges):
        yield _part(graph, cores, {mode: span for part in parts for mode, span in part.items()})


def _part(graph: Graph, cores: Sequence[Tensor], box: Mapping[str, Span]) -> tuple[Graph, list[Tensor]]:
    """The entries of some modes as a network of their own."""
    values = list(cores)
    for k, core in enumerate(graph.cores):
        for axis, index in enumerate(core.indices):
            if index in box:
                values[k] = values[k].narrow(axis, *box[index])
    return _resized(graph, {mode: length for mode, (_, length) in box.items()}), values


def _resized(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    return replace(graph.whole, sizes={**graph.sizes, **sizes})


@lru_cache(maxsize=4096)
def _halves(graph: Graph) -> list[dict[str, Span]]:
    """One mode in halves: that for which the largest product of the first is smallest."""

    def largest(mode: str) -> int:
        return _cheapest(_resized(graph, {mode: -(-graph.sizes[mode] // 2)})).largest

    mode = min((mode for mode in graph.modes if graph.sizes[mode] > 1), key=largest)
    size, half = graph.sizes[mode], -(-graph.sizes[mode] // 2)
    return [{mode: (0, half)}, {mode: (half, size - half)}]


def _below(count: int, sizes: Sequence[int]) -> Iterator[tuple[Span, ...]]:
    """The numbers below ``count``, their digits of these ``sizes``: as products of a (start, length) for each digit."""
    if not sizes:
        yield ()
        return
    first, rest = sizes[0], sizes[1:]
    full, left = divmod(count, math.prod(rest))
    assert count <= first * math.prod(rest)
    if full:
        yield ((0, full), *((0, size) for size in rest))
    if left:
        for digits in _below(left, rest):
            yield ((full, 1), *digits)


def component_norms(graph: Graph, cores: Sequence[Tensor], bond: str) -> Tensor:
    """||W_r||^2 of the components along ``bond``, one for each of its values, that W with its padding is the sum of."""
    return _doubled(graph, (bond,))([*cores, *cores])


@lru_cache(maxsize=4096)
def _reconstructs(graph: Graph) -> bool:
    """Whether W and the sum of its squares cost less than the network with its copy."""
    square = RATES.contraction(1, graph.dense_parameters, 1, 1, 1, (graph.dense_parameters, 0, 1))
    return _cheapest(graph).seconds(RATES) + square < _doubled(graph).seconds(RATES)


@lru_cache(maxsize=4096)
def _doubled(graph: Graph, held: tuple[str, ...] = ()) -> Contraction:
    """The network with a copy of itself that shares its modes and the bonds ``held``, which stay open."""
    shared = (*graph.modes, *held)
    copies = tuple(
        Core(f"{core.name}'", tuple(i if i in shared else f"{i}'" for i in core.indices)) for core in graph.cores
    )
    sizes = {**graph.sizes, **{f"{bond}'": size for bond, size in graph.ranks.items()}}
    return _cheapest(Graph(graph.cores + copies, held, sizes))


@lru_cache(maxsize=4096)
def _cheapest(graph: Graph) -> Contraction:
    """The cheaper of the two greedy orders."""
    orders = [compile_tree(graph, greedy_tree(graph, by_macs)) for by_macs in (False, True)]
    return min(orders, key=lambda order: order.seconds(RATES))
