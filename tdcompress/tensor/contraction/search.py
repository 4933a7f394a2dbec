"""The cheapest contraction path, found by dynamic programming over subsets of cores."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator
from functools import cached_property, lru_cache

from ..errors import ConfigError
from ..graph import Graph
from .cost import Rates
from .moves import Move, carried, cores_in, moves, names, needed
from .path import Geometry, Path, Term, Tree
from .roles import MODES, Parts, parts
from .walk import walk

PLANS = ("model", "measure", "contract", "chain", "dense")
_SLACK = 1.5  # how much slower than the best, by the model, a path may be that is measured
_MEASURED = 6
_SUBSETS = 2100  # of cores that hang together: a search of so many takes some ten seconds
_CORES = 18  # of which any subset may have been applied: a search of so many takes half a minute


class Search:
    """The dynamic programme for one graph, geometry and device."""

    def __init__(self, graph: Graph, geometry: Geometry, rates: Rates) -> None:
        self.graph, self.geometry, self.rates = graph, geometry, rates
        self.everything = (1 << len(graph.cores)) - 1
        self.space = dict(geometry.space)
        self.names = names(graph, tuple(self.space))
        self._sizes: dict[tuple[str, ...], tuple[int, list[tuple[int, tuple[int, int]]]]] = {}

    @property
    def named(self) -> dict[str, list[int]]:
        """The subsets of cores that are terms of the plans that say so."""
        return {"chain": [1 << k for k in range(len(self.graph.cores))], "dense": [self.everything]}

    def needed(self, subset: int) -> frozenset[str]:
        """The indices that reach beyond ``subset``: on other cores, or in what the layer puts out."""
        return needed(self.names, subset)

    def size(self, indices: tuple[str, ...], done: int = 0) -> int:
        """Entries of a tensor; ``done``: the cores applied so far, which decides the spatial sizes."""
        if indices not in self._sizes:
            images, total = [], 1
            for index in indices:
                if index in self.space:  # along no mode: of one size throughout
                    (carrier, *_) = self.graph.carriers.get(MODES[index], (0,))
                    images.append((carrier, self.space[index]))
                else:
                    total *= self.geometry.batch if index == "b" else self.graph.sizes[index]
            self._sizes[indices] = total, images
        total, images = self._sizes[indices]
        for carrier, sizes in images:
            total *= sizes[done >> carrier & 1]
        return total

    @cached_property
    def trees(self) -> dict[int, tuple[float, Tree, tuple[str, ...]]]:
        """For each connected subset of the cores: seconds of its best merge, the tree, its open indices.

        Raises ``ConfigError`` for more of them than can be searched.
        """
        count = len(self.graph.cores)
        if self.connected is None:
            raise ConfigError(
                f"{count} cores can be contracted in too many orders to search for the best (at most {_CORES} cores, "
                f"{_SUBSETS:,} subsets of them that hang together): split into fewer factors"
            )
        found: dict[int, tuple[float, Tree, tuple[str, ...]]] = {
            1 << k: (0.0, k, self.graph.cores[k].indices) for k in range(count)
        }
        for subset in sorted(self.connected, key=lambda subset: (subset.bit_count(), subset)):
            best: tuple[float, Tree] | None = None
            left = subset & (subset - 1)
            while left:
                right = subset ^ left
                if left < right and left in found and right in found:
                    a, b = found[left], found[right]
                    need = parts(a[2], b[2], self.needed(subset).union(self.graph.modes))
                    if need.group or need.summed:
                        seconds = a[0] + b[0] + self._merge_seconds(need)
                        if best is None or seconds < best[0]:
                            best = (seconds, (a[1], b[1]))
                left = (left - 1) & subset
            if best is not None:
                found[subset] = (*best, carried(self.names, subset))
        return found

    @cached_property
    def connected(self) -> set[int] | None:
        """The subsets of cores that hang together by what they share; None where they are too many to search."""
        around = [
            sum({1 << other for index in core.indices for other in self.graph.carriers[index]})
            for core in self.graph.cores
        ]
        if len(around) > _CORES:
            return None
        found = {1 << k for k in range(len(around))}
        border = list(found)
        while border:
            subset = border.pop()
            near = functools.reduce(operator.or_, (around[k] for k in cores_in(subset)))
            new = {subset | 1 << k for k in cores_in(near & ~subset)} - found
            found |= new
            border += new
            if len(found) > _SUBSETS:
                return None
        return found

    def _merge_seconds(self, need: Parts) -> float:
        group, summed, kept, new = (self.size(part) for part in (need.group, need.summed, need.kept, need.new))
        sizes = (group * kept * summed, group * summed * new, group * kept * new)
        return self.rates.contraction(kept, group, summed, new, 1, sizes)

    def run(self, allowed: list[int], bound: float = math.inf) -> list[Path]:
        """The cheapest path to every final order, cheapest first; only subsets in ``allowed`` may be a term."""
        trees = self.trees  # first of all: what follows goes through all subsets
        start = ("b", *self.space, *self.graph.inputs)
        states: dict[int, dict[tuple[str, ...], tuple[float, tuple[Term, ...]]]] = {0: {start: (0.0, ())}}
        for done in sorted(range(self.everything), key=int.bit_count):
            orders = states.get(done)
            if not orders:
                continue
            cheapest = min(seconds for seconds, _ in orders.values())
            for order, (seconds, terms) in orders.items():
                if seconds > min(bound, cheapest + self.rates.copy(self.size(order, done))):
                    continue  # reordering the cheapest state would do at least as well
                for subset in allowed:
                    if subset & done:
                        continue
                    merging, tree, _ = trees[subset]
                    for after, more, new, spread in self._apply(order, done, subset, merging):
                        if seconds + more <= bound:
                            target = states.setdefault(done | subset, {})
                            if after not in target or seconds + more < target[after][0]:
                                target[after] = (seconds + more, (*terms, Term(tree, new, spread)))
        final = ("b", *self.space, *self.graph.outputs)
        last = self.rates.copy(self.size(final, self.everything))
        ends = []
        for order, (seconds, terms) in states.get(self.everything, {}).items():
            whole = not self.graph.padding[0] or terms[-1].new == self.graph.outputs
            ends.append(Path(terms, seconds + (0.0 if order == final and whole else last)))
        return sorted(ends, key=lambda path: path.seconds)

    def _apply(
        self, order: tuple[str, ...], done: int, subset: int, merging: float
    ) -> Iterator[tuple[tuple[str, ...], float, tuple[str, ...], bool]]:
        """Every way of applying the cores of ``subset``, merged in ``merging`` seconds: the order afterwards, seconds,
        and the term's ``new`` and ``spread``."""
        for move in moves(self.names, order, done, subset):
            copy = 0.0 if move.wanted == order else self.rates.copy(self.size(order, done))
            if not done and self.graph.padding[1] and move.need.summed != self.graph.inputs:
                copy += self.rates.copy(self.size(order))
            seconds = merging / self.geometry.uses + copy + self._apply_seconds(order, move, done, subset)
            for after, new in move.ends:
                yield after, seconds, new, move.spread

    def _apply_seconds(self, order: tuple[str, ...], move: Move, done: int, subset: int) -> float:
        need, after = move.need, done | subset
        rows = self.size(need.kept, done if self.geometry.transposed else after)
        group, summed, new, taps = (self.size(part) for part in (need.group, need.summed, need.new, move.axes))
        copies = self.size(move.beside)
        out = self.size(need.kept, after) * group * new
        sizes = (self.size(order, done), copies * group * summed * new * taps, out)
        along = len(self.space) if move.convolves else 0
        return self.rates.contraction(rows // copies, copies * group, summed, new, taps, sizes, along)

    def macs(self, path: Path) -> int:
        """Multiply-accumulates of the calls on the activation, for the whole batch."""
        total = 0
        for meeting in walk(self.graph, path, tuple(self.space)):
            met = meeting.done - meeting.members if self.geometry.transposed else meeting.done
            need, done = meeting.need, sum(1 << position for position in met)
            total += self.size((*need.kept, *need.group, *meeting.axes), done) * meeting.summed * meeting.new
        return total


def macs(graph: Graph, path: Path, geometry: Geometry) -> int:
    """MACs of the activation's calls along a path (merging cores is done once per batch, and not at inference)."""
    return Search(graph, geometry, Rates()).macs(path)


@lru_cache(maxsize=4096)
def _merge_tree(graph: Graph, sizes: tuple[tuple[str, int], ...]) -> Tree:
    search = Search(graph, Geometry(1), Rates())
    return greedy_tree(graph) if search.connected is None else search.trees[search.everything][1]


def merge_tree(graph: Graph) -> Tree:
    """The cheapest order in which to merge all cores; of more than can be searched, a good one."""
    return _merge_tree(graph, tuple(sorted(graph.sizes.items())))


def greedy_tree(graph: Graph, by_macs: bool = False) -> Tree:
    """An order in which to merge all cores, for graphs too large to search: always the pair whose product is smallest
    compared with the two it replaces (Gray and Kourtis 2021, section 3.1), or that which takes the fewest MACs."""
    terms: list[tuple[Tree, frozenset[str]]] = [(k, frozenset(core.indices)) for k, core in enumerate(graph.cores)]

    def merged(a: int, b: int) -> frozenset[str]:
        others = frozenset().union(*(term[1] for k, term in enumerate(terms) if k not in (a, b)), graph.modes)
        return (terms[a][1] | terms[b][1]) & others

    def macs(pair: tuple[int, int]) -> int:
        return math.prod(graph.sizes[i] for i in terms[pair[0]][1] | terms[pair[1]][1])

    def growth(pair: tuple[int, int]) -> int:
        sizes = [math.prod(graph.sizes[i] for i in t) for t in (merged(*pair), terms[pair[0]][1], terms[pair[1]][1])]
        return sizes[0] - sizes[1] - sizes[2]

    while len(terms) > 1:
        pairs = itertools.combinations(range(len(terms)), 2)
        a, b = min((pair for pair in pairs if terms[pair[0]][1] & terms[pair[1]][1]), key=macs if by_macs else growth)
        joined = ((terms[a][0], terms[b][0]), merged(a, b))
        terms = [term for k, term in enumerate(terms) if k not in (a, b)] + [joined]
    return terms[0][0]


def paths(graph: Graph, geometry: Geometry, rates: Rates, plan: str = "model") -> list[Path]:
    """Candidate paths, the cheapest by the model first.

    ``plan``: ``model`` gives the optimum of the cost model over all connected contraction orders, ``measure`` the best
    few, of which a measurement may choose; ``contract`` the optimum of those that never merge all cores into the dense
    weight; ``chain`` applies one core at a time; ``dense`` merges all cores.
    """
    return list(_paths(graph, tuple(sorted(graph.sizes.items())), geometry, rates, plan))


def whole_paths(graph: Graph, geometry: Geometry, rates: Rates) -> list[Path]:
    """The one path that puts the weight together first, as candidates are listed."""
    return paths(graph, geometry, rates, "dense")


@lru_cache(maxsize=4096)
def _paths(graph: Graph, sizes: tuple[tuple[str, int], ...], geometry: Geometry, rates: Rates, plan: str) -> list[Path]:
    search = Search(graph, geometry, rates)
    named = search.named
    if plan in named:
        return search.run(named[plan])[:1]
    if plan == "contract":
        del named["dense"]
    known = [path for allowed in named.values() for path in search.run(allowed)[:1]]
    slack = _SLACK if plan == "measure" else 1 + 1e-9
    bound = slack * min(path.seconds for path in known)
    subsets = [subset for subset in search.trees if plan != "contract" or subset != search.everything]
    best = sorted([*search.run(subsets, bound), *known], key=lambda path: path.seconds)
    if plan != "measure":
        return best[:1]
    return list({path.terms: path for path in [*best[:_MEASURED], *known]}.values())
