"""What a term makes of an activation, by the names of their indices alone.

Sizes do not matter, so that layers and ranks of one graph share what was found for the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..graph import Core, Graph
from .roles import KERNEL, Parts, arranged, convolves, others, parts, result


@dataclass(frozen=True)
class Move:
    """One way to apply a term to an activation.

    ``need``: the part of each index that is no kernel mode, ``axes``: those that are; ``wanted``: how the activation
    must lie; ``spread``: as ``Term`` has it, ``beside`` then the indices that come among the channels; ``convolves``:
    whether it runs as a convolution; ``ends``: the order afterwards, for each order of the indices that are new.
    """

    need: Parts
    axes: tuple[str, ...]
    wanted: tuple[str, ...]
    spread: bool
    beside: tuple[str, ...]
    convolves: bool
    ends: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


class Names:
    """The indices of a graph's cores and of the images, without their sizes; one object for all that are equal."""

    def __init__(self, graph: Graph, space: tuple[str, ...]) -> None:
        self.graph, self.space = graph, space


def names(graph: Graph, space: tuple[str, ...]) -> Names:
    """Those of this graph; ``space``: the spatial indices."""
    return _names(graph.cores, graph.modes, graph.outputs, space)


@lru_cache(maxsize=256)
def _names(cores: tuple[Core, ...], modes: tuple[str, ...], outputs: tuple[str, ...], space: tuple[str, ...]) -> Names:
    return Names(Graph(cores, modes, {}, outputs=outputs), space)


def cores_in(subset: int) -> frozenset[int]:
    """The cores of a bit mask."""
    return frozenset(position for position in range(subset.bit_length()) if subset >> position & 1)


@lru_cache(maxsize=2**16)
def carried(known: Names, subset: int) -> tuple[str, ...]:
    """The indices that the product of the cores in ``subset`` carries."""
    return known.graph.open_indices(cores_in(subset))


@lru_cache(maxsize=2**16)
def needed(known: Names, subset: int) -> frozenset[str]:
    """The indices that reach beyond ``subset``: on other cores, or in what the layer puts out."""
    return known.graph.beyond(cores_in(subset)).union(known.graph.outputs)


@lru_cache(maxsize=2**17)
def moves(known: Names, order: tuple[str, ...], done: int, subset: int) -> tuple[Move, ...]:
    """Every way to apply the cores in ``subset`` to an activation in this ``order``; ``done``: those applied before."""
    indices = carried(known, subset)
    axes = tuple(index for index in indices if index in KERNEL)
    weight = tuple(index for index in indices if index not in KERNEL)
    need = parts(order, weight, needed(known, done | subset))
    if not (need.group or need.summed):
        return ()
    modes = tuple(index for index in known.graph.outputs if index in need.new)
    bonds = tuple(index for index in need.new if index not in modes)
    arrangements = [
        (*modes, *(bond for bond in bonds if bond != last), *((last,) if last else ())) for last in bonds or (None,)
    ]
    found = []
    for spread in (False, True) if axes and others(need) else (False,):
        wanted = arranged(order, need, bool(axes), known.space, spread)
        ends = tuple((result(wanted, need, new), new) for new in arrangements)
        along = convolves(wanted, need, bool(axes), known.space)
        found.append(Move(need, axes, wanted, spread, others(need) if spread else (), along, ends))
    return tuple(found)
