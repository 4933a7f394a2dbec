"""Rows of a weight picked from its cores, without the weight: a path whose activation is the index of an output.

The output modes are the digits of an index. The slices of the cores at these digits are contracted for each index (Yin
et al. 2021, *TT-Rec*, section 3); where it is cheaper for as many indices, neighbouring cores are merged first, to a
table that holds no more than the cores do.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import Graph
from .calls import Merge
from .cost import Rates
from .path import Geometry, Path, Term
from .plan import Compiler
from .roles import parts
from .search import Search
from .walk import positions


@dataclass(frozen=True)
class Slices:
    """A call of a lookup: the slices of the tensor in ``slot`` at an index's digits, contracted with what there is.

    ``order``: of the tensor's indices, the output modes first; ``rows``: of how many entries the slices are picked, 1
    where there is nothing to pick; ``shape``: of a slice. ``digits``: (divisor, size, place) of each digit of an index,
    which picks the row that is the sum of ``index // divisor % size * place``. ``equation``: the contraction as einsum
    takes it, None for the first.
    """

    slot: int
    order: tuple[int, ...]
    rows: int
    shape: tuple[int, ...]
    digits: tuple[tuple[int, int, int], ...]
    equation: str | None

    def weight(self, slots: list[Tensor]) -> Tensor:
        """A matrix whose rows are the slices, or the only slice there is."""
        ordered = slots[self.slot].permute(self.order)
        return ordered.reshape(self.rows, math.prod(self.shape)) if self.digits else ordered

    def __call__(self, indices: Tensor, found: Tensor | None, weight: Tensor) -> Tensor:
        if self.digits:
            row = torch.zeros_like(indices)
            for divisor, size, place in self.digits:
                row = row + indices // divisor % size * place
            weight = F.embedding(row, weight).reshape(*indices.shape, *self.shape)
        return weight if self.equation is None else torch.einsum(self.equation, found, weight)


@dataclass(frozen=True)
class Lookup:
    """The compiled path of one layer, called as a ``Plan`` is; ``text`` names its calls in order.

    ``outputs`` and ``inputs``: how many rows the weight has, and how many entries a row.
    """

    path: Path
    merges: tuple[Merge, ...]
    steps: tuple[Slices, ...]
    outputs: int
    inputs: int
    text: str

    def __call__(self, indices: Tensor, cores: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
        """The rows ``(n, in)`` of the weight at ``indices`` ``(n,)``."""
        return self.apply(indices, self.weights(cores), bias)

    def weights(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """What slices are picked of, one tensor a call: cores, and products of them."""
        slots = list(cores)
        for merge in self.merges:
            slots.append(merge(slots))
        return [step.weight(slots) for step in self.steps]

    def apply(self, indices: Tensor, weights: Sequence[Tensor], _: Tensor | None = None) -> Tensor:
        """The same with what ``weights`` gave. Raises torch's ``IndexError`` for an index that there is no row for."""
        # Digits know no bounds: torch objects to an index that a tensor of so many entries, here one in memory, lacks.
        indices = indices + indices.new_zeros(()).expand(self.outputs).index_select(0, indices)
        found = None
        for step, weight in zip(self.steps, weights, strict=True):
            found = step(indices, found, weight)
        assert found is not None
        return found.reshape(indices.shape[0], math.prod(found.shape[1:]))[:, : self.inputs].contiguous()


@dataclass(frozen=True)
class _Meeting:
    """One contraction of a lookup: ``slices`` are the indices of what is picked, without the output modes ``picked``.

    ``before`` and ``after``: the indices of what is found, ``b`` the index of a row among them.
    """

    term: Term
    picked: tuple[str, ...]
    slices: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def _walk(graph: Graph, path: Path) -> Iterator[_Meeting]:
    before, done = tuple[str, ...](), frozenset[int]()
    for term in path.terms:
        members = positions(term.tree)
        done |= members
        indices = graph.open_indices(members)
        picked = tuple(mode for mode in graph.outputs if mode in indices)
        slices = tuple(index for index in indices if index in before) + term.new
        kept = {*graph.inputs, *graph.beyond(done)}
        there = (*graph.inputs, *graph.bonds) if before else slices  # what is picked first lies as it is picked
        after = ("b", *(index for index in there if index in kept and index in (*before, *slices)))
        yield _Meeting(term, picked, slices, before, after)
        before = after


def compile_lookup(graph: Graph, path: Path) -> Lookup:
    """Compile ``path``, one of ``lookup_paths``, for ``graph``."""
    compiler = Compiler(graph)
    letters = dict(zip(("b", *graph.sizes), string.ascii_letters, strict=False))
    steps, texts = [], []
    for meeting in _walk(graph, path):
        slot = compiler.merge(meeting.term.tree)
        carried = compiler.slots[slot]
        order = tuple(carried.index(index) for index in (*meeting.picked, *meeting.slices))
        digits = tuple(
            (_following(graph, graph.outputs, mode), graph.sizes[mode], _following(graph, meeting.picked, mode))
            for mode in meeting.picked
        )
        right = (*(("b",) if digits else ()), *meeting.slices)
        left, into, out = ("".join(letters[i] for i in part) for part in (meeting.before, right, meeting.after))
        rows, shape = compiler.size(meeting.picked), compiler.sizes(meeting.slices)
        steps.append(Slices(slot, order, rows, shape, digits, f"{left},{into}->{out}" if left else None))
        texts.append(f"{compiler.names[slot]}:{'slices' if digits else 'einsum'}")
    outputs, inputs = (count for _, count in graph.channels)
    return Lookup(path, tuple(compiler.merges), tuple(steps), outputs, inputs, " > ".join(texts))


def _following(graph: Graph, modes: Sequence[str], mode: str) -> int:
    """By how much a number grows with its digit ``mode``: the product of the sizes of those that follow."""
    return math.prod(graph.sizes[other] for other in modes[modes.index(mode) + 1 :])


def lookup_macs(graph: Graph, path: Path, indices: int) -> int:
    """Multiply-accumulates of looking up so many indices (merging cores is done once per batch)."""
    meetings = list(_walk(graph, path))[1:]
    return indices * sum(
        math.prod(graph.sizes[index] for index in {*meeting.before, *meeting.slices} - {"b"}) for meeting in meetings
    )


def lookup_paths(graph: Graph, geometry: Geometry, rates: Rates, plan: str = "model") -> list[Path]:
    """The best path by the cost model, as ``search.paths`` gives them; ``geometry.batch``: how many indices.

    All cores are merged into the weight itself for ``plan="dense"`` alone.
    """
    search = Search(graph, geometry, rates)
    named = search.named
    small = [subset for subset, (*_, indices) in search.trees.items() if search.size(indices) <= graph.parameters]
    allowed = named[plan] if plan in named else sorted({*named["chain"], *small} - {search.everything})
    states: dict[int, tuple[float, tuple[Term, ...], tuple[str, ...]]] = {0: (0.0, (), ())}
    for done in sorted(range(search.everything), key=int.bit_count):
        if done not in states:
            continue
        seconds, terms, before = states[done]
        for subset in allowed:
            if subset & done:
                continue
            merging, tree, indices = search.trees[subset]
            picked = [mode for mode in graph.outputs if mode in indices]
            needed = search.needed(done | subset).union(graph.inputs)
            need = parts(before, [i for i in indices if i not in picked], needed)
            if not (need.group or need.summed) if done else not picked:
                continue
            inputs = tuple(mode for mode in graph.inputs if mode in need.new)
            term = Term(tree, (*inputs, *(index for index in need.new if index not in inputs)))
            table, slices = search.size(indices), search.size((*need.group, *need.summed, *need.new))
            cost = (merging + rates.copy(table)) / geometry.uses + (
                rates.copy(geometry.batch * slices) if picked else 0
            )
            if done:
                group, summed, kept, new = (
                    search.size(part) for part in (need.group, need.summed, need.kept, need.new)
                )
                each = geometry.batch if picked else 1  # slices differ from one index to the next
                sizes = (kept * group * summed, each * group * summed * new, kept * group * new)
                cost += rates.contraction(kept // each, each * group, summed, new, 1, sizes)
            target = done | subset
            if target not in states or seconds + cost < states[target][0]:
                (*_, last) = _walk(graph, Path((*terms, term), 0.0))
                states[target] = (seconds + cost, (*terms, term), last.after)
    total, terms, _ = states[search.everything]
    return [Path(terms, total)]
