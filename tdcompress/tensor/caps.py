"""How large the bonds are: what they can use at most, and what a rank expression asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache

from .graph import Core, Graph


def grain(graph: Graph, bond: str, rank: int, multiple: int) -> int:
    """What a rank of about this size should be a multiple of: ``multiple``, but 1 for ranks below four of them.

    The units that multiply matrices work on tiles of 8 numbers or more, and a tensor whose channels are no multiple of
    8 is padded first, or read entry by entry. Of small ranks rounding would decide what a layer gets. Ranks within
    blocks are small, and products in groups are what padding costs most: half the multiple, from itself on.
    """
    if rank >= 4 * multiple:
        return multiple
    return max(1, multiple // 2) if graph.blocks[bond] and rank >= multiple else 1


def caps(graph: Graph) -> dict[str, int]:
    """The largest size each bond can use, whatever the others are, with a weight that fills all modes.

    A bond whose removal separates the network: the smallest product of the modes beyond one of its ends (for two
    ends the smaller side; for a hyperedge all modes but those of its largest branch, the bound of the CP rank).
    A bond on a cycle shares every cut with others, of which any may be one: the same bound where all others are cut and
    the cores that do not carry it lie on the sides that make it largest, or its k-th root for k bonds between the same
    cores, which are as good as one of the product of their sizes. Modes that lie on both sides of a cut number its
    blocks, each of which is cut for itself, and count on neither.
    """
    return dict(_caps(graph.with_ranks(dict.fromkeys(graph.bonds, 1))))


@lru_cache(maxsize=4096)
def _caps(graph: Graph) -> dict[str, int]:
    found = {}
    for bond in graph.bonds:
        branches = graph.branches(bond)
        if len(branches) == len(graph.carriers[bond]):
            found[bond] = graph.entries // max(graph.mode_size(branch) for branch in branches)
        else:
            found[bond] = _cycle_cap(graph, bond)
    return found


def _caps_beside(graph: Graph, ranks: Mapping[str, int]) -> dict[str, int]:
    """The caps of bonds beside others of these ranks: of parallel ones what all can use, by what the others have."""
    limits = caps(graph)
    found = dict(limits)
    for bond in [bond for bond, limit in limits.items() if ranks[bond] > limit]:
        beside = [other for other in graph.bonds if other != bond and graph.carriers[other] == graph.carriers[bond]]
        if beside:
            others = math.prod(max(1, min(ranks[other], limits[other])) for other in beside)
            found[bond] = max(limits[bond], _cycle_pass(graph, bond) // others)
    return found


def _cycle_cap(graph: Graph, bond: str) -> int:
    """Of as many parallel bonds, all of one size, what each can use."""
    parallel = sum(graph.carriers[other] == graph.carriers[bond] for other in graph.bonds)
    return math.ceil(round(_cycle_pass(graph, bond) ** (1 / parallel), 9))


def _cycle_pass(graph: Graph, bond: str) -> int:
    """The most that parallel bonds pass with all others cut, each core then being on one of their sides."""
    sides, total = graph.carriers[bond], graph.entries
    others = [k for k in range(len(graph.cores)) if k not in sides]
    largest = min(
        max(graph.mode_size([side, *(k for k, at in zip(others, places, strict=True) if at == side)]) for side in sides)
        for places in itertools.product(sides, repeat=len(others))
    )
    return total // largest


def shares(graph: Graph) -> dict[str, int]:
    """The smallest sizes of the bonds that let every cut through a single bond or a cycle pass all it can.

    Bonds that separate the network all have one size, that of the largest cut. A cut of a cycle at k bonds passes the
    product of k ranks: each of them takes the k-th root of the smaller side's mode product, the largest over its cuts.
    """
    limits, everything = caps(graph), frozenset(range(len(graph.cores)))
    found = {}
    for bond in graph.bonds:
        if len(graph.branches(bond)) < len(graph.carriers[bond]):
            roots = (
                (graph.entries // max(graph.mode_size(inside), graph.mode_size(everything - inside))) ** (1 / count)
                for inside, count in cuts(graph, bond)
            )
            found[bond] = math.ceil(round(max(roots), 9))
    single = max((limit for bond, limit in limits.items() if bond not in found), default=1)
    return {bond: found.get(bond, single) for bond in graph.bonds}


def cuts(graph: Graph, bond: str) -> Iterator[tuple[frozenset[int], int]]:
    """Every way to cut the network in two through ``bond``: the cores on the first one's side, and how many bonds."""
    first, *others = range(len(graph.cores))
    for count in range(len(others)):
        for chosen in itertools.combinations(others, count):
            inside = frozenset({first, *chosen})
            crossing = _crossing(graph, inside)
            if bond in crossing:
                yield inside, len(crossing)


def _crossing(graph: Graph, inside: frozenset[int]) -> tuple[str, ...]:
    """The bonds of cores of these positions with others."""
    return tuple(
        bond for bond in graph.bonds if 0 < len(inside & set(graph.carriers[bond])) < len(graph.carriers[bond])
    )


def bottleneck(graph: Graph) -> int | None:
    """How many numbers pass from the inputs to the outputs: the smallest product of ranks that parts them.

    None where a core has inputs and outputs: then no ranks part them.
    """
    partings = _partings(graph.with_ranks(dict.fromkeys(graph.bonds, 1)))
    return min((math.prod(graph.sizes[bond] for bond in cut) for cut in partings), default=None)


@lru_cache(maxsize=4096)
def _partings(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """The bonds that are cut in every way to have all inputs on one side and all outputs on the other."""
    first, last = (
        frozenset(position for mode in modes for position in graph.carriers[mode])
        for modes in (graph.inputs, graph.outputs)
    )
    if first & last or not first or not last:
        return ()
    free = sorted(set(range(len(graph.cores))) - first - last)
    chosen = (some for count in range(len(free) + 1) for some in itertools.combinations(free, count))
    return tuple(_crossing(graph, first.union(some)) for some in chosen)


def capped(graph: Graph, ranks: Mapping[str, int]) -> Graph:
    """The graph with the asked bond sizes, each reduced to what its two sides can use, to a fixpoint.

    Besides ``caps``, a bond between two cores never exceeds the product of the other indices of either core, but for
    those that number its blocks. Of parallel bonds one may be larger than its cap as far as others are smaller.
    """
    blocks = graph.blocks
    sizes = {bond: max(1, min(ranks[bond], limit)) for bond, limit in _caps_beside(graph, ranks).items()}
    while True:
        graph = graph.with_ranks(sizes)
        before = dict(sizes)
        for bond in graph.bonds:
            if len(graph.carriers[bond]) != 2:
                continue
            for position in graph.carriers[bond]:
                others = (i for i in graph.cores[position].indices if i != bond and i not in blocks[bond])
                rest = math.prod(sizes.get(index, graph.sizes[index]) for index in others)
                sizes[bond] = min(sizes[bond], rest)
        if sizes == before:
            return graph


def absorbed(graph: Graph) -> Graph:
    """The graph without its square cores, those from modes to one bond that is as large as they are together.

    What such a core can do, in every block, its neighbour can do by itself: it is a choice of gauge that costs
    parameters, MACs and a factor in every product of gradients. Once absorbed, its neighbour may be square in turn. Two
    cores stay.
    """
    while len(graph.cores) > 2:
        square = next((core for core in graph.cores if _is_square(graph, core)), None)
        if square is None:
            break
        graph = graph.merged(square)
    return graph


def _is_square(graph: Graph, core: Core) -> bool:
    bond = graph.leaf_bond(core)
    if bond is None:
        return False
    own = (graph.sizes[index] for index in core.indices if index != bond and index not in graph.blocks[bond])
    return math.prod(own) == graph.sizes[bond]
