"""Exhaustive search over contraction orders: what the planner's dynamic programme must find."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.path import Geometry
from tdcompress.tensor.graph import Graph

KERNEL = {"z": "kd", "y": "kh", "x": "kw"}
"""Along which axis of the image each mode of a kernel reaches."""


@dataclass(frozen=True)
class Met:
    """The indices of an activation and a weight: of both that stay or are summed, of the one, and of the other."""

    group: tuple[str, ...]
    summed: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]

    def wanted(self, order: tuple[str, ...], taps: bool, space: tuple[str, ...], spread: bool) -> tuple[str, ...]:
        """How the activation has to lie for torch's call, all else left as it is.

        Images for a convolution: pixels behind what is like a batch, channels last, in groups. If the other indices are
        ``spread`` over channels, behind the pixels. Rows: what is summed last, what numbers several products first.
        """
        channels = (*self.group, *self.summed)
        if spread:
            others = [index for index in self.kept if index not in ("b", *space)]
            return ("b", *space, *others, *channels)
        if taps or (self.group and space and (self.summed or self.new)):
            return (*(index for index in order if index not in (*channels, *space)), *space, *channels)
        if self.group and not self.summed and not self.new:  # one by one
            return order
        behind = [index for index in order if index in self.summed]
        return (*self.group, *(index for index in order if index not in channels), *behind)


class Symmetric(Rates):
    """A device on which it makes no difference which operand stands left, so that the order alone decides."""

    def contraction(self, rows, group, summed, new, taps, sizes, axes=0) -> float:
        return rows * group * summed * new * taps / self.product + sum(sizes) / self.memory + self.call


def cheapest(graph: Graph, geometry: Geometry, rates: Rates) -> float:
    """Seconds of the best of all contraction orders, by trying every pair of tensors at every step."""
    space = dict(geometry.space)

    def size(indices: Iterable[str], done: frozenset[int]) -> int:
        sizes = {"b": geometry.batch, **graph.sizes}
        sizes |= {axis: space[axis][graph.carriers[KERNEL[axis]][0] in done] for axis in space}
        return math.prod(sizes[index] for index in indices)

    def still_open(cores: frozenset[int]) -> tuple[str, ...]:
        indices = dict.fromkeys(i for k in sorted(cores) for i in graph.cores[k].indices)
        return tuple(i for i in indices if i in graph.modes or not cores.issuperset(graph.carriers[i]))

    def price(left, right, taps, before: frozenset[int], after: frozenset[int], left_open) -> tuple[float, Met]:
        shared = [i for i in left if i in right]
        group = tuple(i for i in shared if i in left_open or not after.issuperset(graph.carriers[i]))
        summed = tuple(i for i in shared if i not in group)
        new = tuple(i for i in right if i not in (*left, *taps))
        kept = tuple(i for i in left if i not in right)
        k, g, s, n, t = (size(indices, after) for indices in (kept, group, summed, new, taps))
        met = size(kept, before) if geometry.transposed else k  # the pixels that every tap meets
        seconds = rates.contraction(met, g, s, n, t, (size(left, before), g * s * n * t, k * g * n))
        return seconds, Met(group, summed, kept, new)

    def after(order: tuple[str, ...], summed: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
        return (*(index for index in order if index not in summed), *new)

    @cache
    def best(order: tuple[str, ...], done: frozenset[int], weights: frozenset[frozenset[int]]) -> float:
        found = [math.inf]
        if not weights:
            found = [0.0 if order == end else rates.copy(size(order, done))]
        for a, b in itertools.combinations(weights, 2):
            if set(still_open(a)) & set(still_open(b)):
                seconds, _ = price(still_open(a), still_open(b), (), a, a | b, graph.modes)
                found.append(seconds + best(order, done, weights - {a, b} | {a | b}))
        for cores in weights:
            indices = still_open(cores)
            taps = tuple(i for i in indices if i in KERNEL.values())
            if set(order) & set(indices):
                seconds, need = price(order, indices, taps, done, done | cores, graph.outputs)
                others = [i for i in need.kept if i not in ("b", *space)]
                for spread in (False, True) if taps and others else (False,):
                    wanted = need.wanted(order, bool(taps), tuple(space), spread)
                    total = seconds if wanted == order else seconds + rates.copy(size(order, done))
                    if spread:  # the kernel is read and written as often as it is repeated
                        more = size(others, done) - 1
                        total += more * size((*need.group, *need.summed, *need.new, *taps), done) / rates.memory
                    for new in itertools.permutations(need.new):
                        found.append(total + best(after(wanted, need.summed, new), done | cores, weights - {cores}))
        return min(found)

    start, end = (("b", *space, *(m for m in graph.modes if m[0] == kind)) for kind in "io")
    return best(start, frozenset(), frozenset(frozenset({k}) for k in range(len(graph.cores))))
