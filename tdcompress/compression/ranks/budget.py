"""Ranks by budget: one scale for a whole network, bisected over counts until it costs what is asked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...tensor.graph import Graph
from .scales import scale

TOLERANCE = 0.02
NEAR = 0.005  # no more bonds leave the common scale once the total is as near as this
HALVINGS = 40
FINEST = 1e-6  # of a power
PLANNINGS = 8
HELD = 3  # how far below its share a single bond is tried


Count = Callable[[int, Graph], int]
"""What the weight at a position costs as a graph: parameters or MACs."""
Planned = Callable[[Mapping[int, Graph]], Count]
"""How to count, as things are planned for graphs of these ranks at some positions."""


class Unreachable(ValueError):
    """No ranks come near enough: the ``smallest`` and ``largest`` totals there are, and the ``nearest`` one found."""

    def __init__(self, smallest: int, largest: int, nearest: int) -> None:
        super().__init__(smallest, largest, nearest)
        self.smallest, self.largest, self.nearest = smallest, largest, nearest


def divided(room: float, dense: Sequence[float]) -> list[float]:
    """What each weight may cost of what all may cost together, where none is too small for its part: see ``fit``."""
    whole = sum(map(math.sqrt, dense))
    return [room * math.sqrt(cost) / whole for cost in dense]


def fit(
    families: Sequence[Sequence[Graph]],
    planned: Planned,
    dense: Sequence[float],
    fixed: int,
    target: float,
    multiple: int = 1,
    tolerance: float = TOLERANCE,
) -> list[Graph]:
    """Graphs, one of each family, with ranks at which ``fixed`` and all counts add up to ``target``, to within 2 %.

    Each weight may cost in proportion to the square root of its ``dense`` cost, as far as its full ranks use it: of all
    ways to divide a budget the one with the least sum of compression ratios (by Lagrange: of dense / p over p of a
    given sum), and the same one for every format. In proportion to ``dense`` itself, the small layers beside a large
    one would be left with next to nothing. ``families``: the graphs that a weight can be held as, at rank one; how they
    grow ``scales`` says.

    ``multiple``: a power of two of which the ranks are multiples (see ``tensor.caps.grain``), or of a smaller one where
    the target cannot be met so, and at last, where families are open, with any graphs of theirs. ``tolerance``: how far
    from the target, as a part of it, the total may be. ``planned`` is asked again at the ranks found, until they are
    those that were planned for, because MACs depend on the plan and the plan on the ranks. Where that goes round in a
    circle it is asked for all ranks that are tried, which takes longer. Raises ``Unreachable``.
    """
    try:
        return _fit(families, planned, dense, fixed, target, multiple, tolerance)
    except Unreachable:
        last = 1 if all(len(family) == 1 for family in families) else 0
        if multiple == last:
            raise
    return fit(families, planned, dense, fixed, target, multiple // 2, tolerance)


def _fit(
    families: Sequence[Sequence[Graph]],
    planned: Planned,
    dense: Sequence[float],
    fixed: int,
    target: float,
    multiple: int,
    tolerance: float,
) -> list[Graph]:
    search = _Search(families, [math.sqrt(cost) for cost in dense], multiple)
    room = target * (1 + 1e-9) - fixed  # a target that is whole but for rounding must not miss what meets it exactly
    nearest = math.inf

    def reached(found: Sequence[Graph], count: Count) -> bool:
        nonlocal nearest
        total = fixed + sum(count(k, graph) for k, graph in enumerate(found))
        nearest = min(nearest, total, key=lambda one: abs(one - target))
        return abs(total - target) <= tolerance * target

    found = search.at([0.25] * len(families))
    count = planned(dict(enumerate(found)))
    for _ in range(PLANNINGS):
        before, found = found, search.run(count, room, TOLERANCE * target)
        if found == before and nearest < math.inf:
            break
        count = planned(dict(enumerate(found)))
        if reached(found, count):
            return found
    else:

        def each_planned(k: int, graph: Graph) -> int:
            return planned({k: graph})(k, graph)

        found = search.run(each_planned, room, TOLERANCE * target)
        if reached(found, each_planned):
            return found
    ends = []
    for powers in ([0.0] * len(families), search.tops):
        found = search.at(powers)
        count = planned(dict(enumerate(found)))
        ends.append(fixed + sum(count(k, graph) for k, graph in enumerate(found)))
    smallest, largest = ends
    raise Unreachable(smallest, largest, int(nearest))


Bond = tuple[int, str]
"""The position of a weight and the name of what has a size in its scale, a bond mostly."""


class _Search:
    """The ranks that come near a target. ``weights``: what each graph may cost, in proportion."""

    def __init__(self, families: Sequence[Sequence[Graph]], weights: Sequence[float], multiple: int) -> None:
        self.weights = weights
        self.scales = [scale(family, multiple) for family in families]
        self.tops = [one.top for one in self.scales]

    def wanted(self, k: int, power: float) -> dict[Bond, float]:
        """The size of every bond of a graph, not yet whole."""
        return {(k, bond): size for bond, size in self.scales[k].wanted(power).items()}

    def whole(self, k: int, sizes: Mapping[Bond, float]) -> Graph:
        """A graph with these sizes, rounded down."""
        return self.scales[k].graph({bond: self.floor((k, bond), sizes[k, bond]) for bond in self.scales[k].caps})

    def cap(self, bond: Bond) -> int:
        """The largest size of a bond."""
        return self.scales[bond[0]].caps[bond[1]]

    def grain(self, bond: Bond, size: int) -> int:
        """What sizes of a bond of about this one are multiples of."""
        return self.scales[bond[0]].grain(bond[1], size)

    def floor(self, bond: Bond, size: float) -> int:
        """The largest size that a bond may have up to this one: a multiple of its grain, or its cap."""
        # The tiny addend: a product that is whole but for rounding must not lose one.
        whole = int(size + 1e-9)
        return whole if whole == self.cap(bond) else whole - whole % self.grain(bond, whole)

    def next(self, bond: Bond, size: int) -> int:
        """The size after ``size``."""
        return min(size + self.grain(bond, size), self.cap(bond))

    def at(self, powers: Sequence[float]) -> list[Graph]:
        """The graphs that a power each gives."""
        return [self.whole(k, self.wanted(k, power)) for k, power in enumerate(powers)]

    def powers(self, scale: float, cost: Callable[[int, float], int]) -> list[float]:
        """The largest power of each graph at which it costs no more than ``scale`` times its weight, at least 0."""
        found = []
        for k, weight in enumerate(self.weights):
            low, high = 0.0, self.tops[k]
            if cost(k, high) <= scale * weight:
                low = high
            while high - low > FINEST:
                middle = (low + high) / 2
                low, high = (middle, high) if cost(k, middle) <= scale * weight else (low, middle)
            found.append(low)
        return found

    def run(self, count: Count, target: float, tolerance: float) -> list[Graph]:
        """The ranks of the largest scale that keeps to the target, then single bonds raised as far as it allows."""
        known: dict[tuple[int, ...], int] = {}

        def cost(k: int, power: float) -> int:
            sizes = self.wanted(k, power)
            key = (k, *(self.floor(bond, size) for bond, size in sizes.items()))
            if key not in known:
                known[key] = count(k, self.whole(k, sizes))
            return known[key]

        def total(powers: Sequence[float]) -> int:
            return sum(cost(k, power) for k, power in enumerate(powers))

        low, high = 0.0, max((cost(k, self.tops[k]) / weight for k, weight in enumerate(self.weights)), default=0.0)
        if total(self.powers(high, cost)) <= target:
            low = high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if total(self.powers(middle, cost)) <= target else (low, middle)
        powers = self.powers(low, cost)
        wanted = {bond: size for k, power in enumerate(powers) for bond, size in self.wanted(k, power).items()}
        sizes = {bond: self.floor(bond, size) for bond, size in wanted.items()}
        short = [1 - cost(k, power) / (low * self.weights[k] or 1) for k, power in enumerate(powers)]
        order = sorted(wanted, key=lambda bond: (-short[bond[0]], sizes[bond] - wanted[bond]))
        found, missing = self.raised(sizes, order, count, target, tolerance)
        if total(self.tops) < target - tolerance:
            return found
        # Bonds of nearly one size have few products: 31 is none, but 32 = 4 * 8 is, found by holding a bond lower.
        for held, less in itertools.product(order, range(1, HELD + 1)):
            lowered = sizes[held] - less * self.grain(held, sizes[held])
            if abs(missing) > tolerance and lowered > 0:
                lower, others = {**sizes, held: lowered}, [bond for bond in order if bond != held]
                other, rest = self.raised(lower, others, count, target, tolerance)
                if abs(rest) < abs(missing):
                    found, missing = other, rest
        return found

    def raised(
        self, sizes: dict[Bond, int], order: Sequence[Bond], count: Count, target: float, tolerance: float
    ) -> tuple[list[Graph], float]:
        """Graphs of these sizes, single bonds raised to the next size, and what is then missing from the target.

        Once round in the given order, where there is room, until the total is near. Then, while more is missing than
        the tolerance, always the bond that brings the total to within it or, where none does, the dearest that there
        is room for.
        """
        sizes = dict(sizes)
        graphs = [self.whole(k, sizes) for k in range(len(self.scales))]
        counts = [count(k, graph) for k, graph in enumerate(graphs)]
        room = target - sum(counts)

        def raisable(bonds: Sequence[Bond]) -> Iterator[tuple[int, Bond, Graph]]:
            for k, bond in bonds:
                # A bond that its neighbours keep below its size waits for them.
                size = sizes[k, bond]
                if size < self.cap((k, bond)) and self.scales[k].has(graphs[k], bond, size):
                    graph = self.whole(k, {**sizes, (k, bond): self.next((k, bond), size)})
                    yield count(k, graph) - counts[k], (k, bond), graph

        def take(cost: int, bond: Bond, graph: Graph) -> None:
            nonlocal room
            k = bond[0]
            sizes[bond], graphs[k], counts[k] = self.next(bond, sizes[bond]), graph, counts[k] + cost
            room -= cost

        for step in raisable(order):
            if NEAR * target < room >= step[0]:
                take(*step)
        while room > tolerance:
            steps = list(raisable(order))
            near = min(steps, key=lambda step: abs(room - step[0]), default=None)
            if near is None or abs(room - near[0]) > tolerance:
                near = max((step for step in steps if step[0] <= room), key=lambda step: step[0], default=None)
            if near is None:
                break
            take(*near)
        return graphs, room
