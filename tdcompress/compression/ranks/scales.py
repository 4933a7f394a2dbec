"""How the size of one weight is scaled: bond by bond, or, where its factors are open as well, on a ladder of graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from ...tensor.caps import capped, caps, grain, shares
from ...tensor.graph import Graph

STEP = 0.02
"""By what part of its parameters a graph may grow at once where that can be had."""


class Scale(Protocol):
    """What of a weight has a size. ``caps``: by name the largest; ``top``: the power at which all are as large."""

    caps: dict[str, int]
    top: float

    def wanted(self, power: float) -> dict[str, float]:
        """The sizes, not yet whole, that a power gives: 0 for the smallest."""

    def grain(self, name: str, size: int) -> int:
        """What such a size of about this one is a multiple of."""

    def graph(self, sizes: Mapping[str, int]) -> Graph:
        """The weight at these sizes."""

    def has(self, graph: Graph, name: str, size: int) -> bool:
        """Whether a graph has this size, which others may keep it from."""


class Bonds:
    """The bonds of a graph: of a power each has that power of its share (``tensor.caps.shares``), as far as its cap.

    ``multiple``: of what their sizes are multiples (see ``tensor.caps.grain``).
    """

    def __init__(self, graph: Graph, multiple: int) -> None:
        self.of, self.multiple = graph, multiple
        self.caps, self.shares = caps(graph), shares(graph)
        # Beyond 1 only where single bonds of a cycle can use more than an even share.
        tops = [math.log(self.caps[bond]) / math.log(share) for bond, share in self.shares.items() if share > 1]
        self.top = max([1.0, *tops])

    def wanted(self, power: float) -> dict[str, float]:
        """The size of every bond, not yet whole."""
        return {bond: min(share**power, self.caps[bond]) for bond, share in self.shares.items()}

    def grain(self, name: str, size: int) -> int:
        """What ranks of about this size are multiples of."""
        return grain(self.of, name, size, self.multiple)

    def graph(self, sizes: Mapping[str, int]) -> Graph:
        """The graph with these ranks, capped."""
        return capped(self.of, sizes)

    def has(self, graph: Graph, name: str, size: int) -> bool:
        """Whether the bond has this size, or its neighbours keep it below."""
        return graph.sizes[name] == size


class Ladder:
    """The graphs of one weight with different factors of its channels, from the smallest: their place is the size.

    ``multiple``: of what their ranks are multiples (see ``tensor.caps.grain``).
    """

    def __init__(self, family: tuple[Graph, ...], multiple: int) -> None:
        self.rungs = rungs(family, multiple)
        self.caps, self.top = {"": len(self.rungs)}, 1.0

    def wanted(self, power: float) -> dict[str, float]:
        """The place, not yet whole."""
        return {"": len(self.rungs) ** power}

    def grain(self, name: str, size: int) -> int:
        """One: every rung may be taken."""
        return 1

    def graph(self, sizes: Mapping[str, int]) -> Graph:
        """The graph at this place."""
        return self.rungs[sizes[""] - 1]

    def has(self, graph: Graph, name: str, size: int) -> bool:
        """Always."""
        return True


def scale(family: Sequence[Graph], multiple: int) -> Scale:
    """Of a weight that can be held as any graph of ``family``, all of rank one; ``multiple``: 0 as in ``rungs``."""
    return Bonds(family[0], max(1, multiple)) if len(family) == 1 else Ladder(tuple(family), multiple)


def passes(graph: Graph) -> tuple[int, int]:
    """What a weight can do: how many of its channels pass the narrowest of its bonds, and the rank of that in a block.

    At most as many as its matrix of inputs by all else has ranks. At equal width larger blocks of larger ranks hold
    what smaller ones do.
    """
    inputs = math.prod(graph.sizes[mode] for mode in graph.inputs)
    blocks = {bond: math.prod(graph.sizes[mode] for mode in modes) for bond, modes in graph.blocks.items()}
    wide = [size * blocks[bond] for bond, size in graph.ranks.items()]
    return min(inputs, graph.entries // inputs, *wide), min(graph.ranks.values())


@lru_cache(maxsize=256)
def rungs(family: tuple[Graph, ...], multiple: int) -> list[Graph]:
    """Of all ``family`` at all ranks those that pass more than any that is no larger, the smallest first.

    Where the next of them is larger by more than ``STEP``, there are some between that pass at least half as much, in
    blocks of at least half the rank. Ranks are multiples of their grain (see ``tensor.caps.grain``), or caps; with a
    ``multiple`` of 0 they are any, and so is what the graphs between pass. The last is the first that has as many
    parameters as the dense weight.
    """
    found = [(graph.parameters, passes(graph), graph) for one in family for graph in _ranked(one, max(1, multiple))]
    kept: list[Graph] = []
    best, last = (0, 0), 0
    for parameters, passed, graph in sorted(found, key=lambda one: (one[0], -one[1][0], -one[1][1])):
        enough = not multiple or all(2 * of >= at_best for of, at_best in zip(passed, best, strict=True))
        if passed > best or (parameters > (1 + STEP) * last and enough):
            best, last = max(best, passed), parameters
            kept.append(graph)
            if parameters >= graph.dense_parameters:
                break
    return kept


def roomy(family: Sequence[Graph], parameters: float) -> Graph:
    """Of ``family``, all of rank one, the graph that passes the most in so many parameters, or the smallest."""
    small = [graph for graph in family if graph.parameters <= parameters]
    return max(small, key=passes) if small else min(family, key=lambda graph: graph.parameters)


def _ranked(graph: Graph, multiple: int) -> Iterator[Graph]:
    """A graph at rank one and at all higher ones, the same of all bonds, until it has as many parameters as the dense
    weight."""
    limits = caps(graph)
    rank, largest = 1, max(limits.values())
    while True:
        graph = graph.with_ranks({bond: min(rank, limit) for bond, limit in limits.items()})
        yield graph
        if rank == largest or graph.parameters >= graph.dense_parameters:
            return
        step = max(grain(graph, bond, rank, multiple) for bond in limits)
        rank = min(rank + step + int(STEP * rank) // step * step, largest)
