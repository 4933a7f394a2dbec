"""The contractions of a path, one after the other, with the part that every index has in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..graph import Graph
from .path import Path, Term, Tree
from .roles import KERNEL, Parts, arranged, parts, result

Arrange = Callable[["tuple[str, ...]", Parts, bool, bool], Sequence[str]]
"""How the activation must lie for a contraction: from its order so far, the parts, whether it runs along a kernel axis,
and ``Term.spread``."""


@dataclass(frozen=True)
class Meeting:
    """One contraction of a path: the activation meets the merged cores of a term.

    ``members``: the positions of those cores; ``done``: of all cores applied, these included. ``indices``: what the
    merged cores carry, in order of appearance, of which ``axes`` are kernel modes. ``need``: the part of each other
    index. The activation comes with its indices in the order ``before``, must lie as ``wanted``, and leaves as
    ``after``. ``reads``: it sums over all input channels at once, as they come; ``writes``: it puts out all output
    channels at once, as they leave. So no padding of theirs is needed: ``new`` and ``summed`` say how many entries the
    indices have that come and go. ``closes``: what all of its groups put out are the output channels as they leave, to
    which a bias can be added.
    """

    term: Term
    members: frozenset[int]
    done: frozenset[int]
    indices: tuple[str, ...]
    axes: tuple[str, ...]
    need: Parts
    before: tuple[str, ...]
    wanted: tuple[str, ...]
    after: tuple[str, ...]
    reads: bool
    writes: bool
    closes: bool
    new: int
    summed: int


def walk(graph: Graph, path: Path, space: Sequence[str] = (), arrange: Arrange | None = None) -> Iterator[Meeting]:
    """The contractions of ``path`` for ``graph``.

    ``space``: the spatial indices of an activation of images, none for rows: it comes as ``(b, space, inputs)``.
    ``arrange``: how it must lie for each contraction; by default as ``roles.arranged`` says, for the calls of a plan.
    """
    lies = arrange or (lambda order, need, kernel, spread: arranged(order, need, kernel, space, spread))
    order, done = ("b", *space, *graph.inputs), frozenset[int]()
    for term in path.terms:
        members = positions(term.tree)
        done |= members
        indices = graph.open_indices(members)
        axes = tuple(index for index in indices if index in KERNEL)
        needed = graph.beyond(done).union(graph.outputs)
        need = parts(order, tuple(index for index in indices if index not in KERNEL), needed)
        wanted = tuple(lies(order, need, bool(axes), term.spread))
        after = result(wanted, need, term.new)
        reads = need.summed == graph.inputs
        last = after == ("b", *space, *graph.outputs)
        writes = last and term.new == graph.outputs
        groups = tuple(index for index in wanted if index in need.group)
        closes = writes or (last and (*groups, *term.new) == graph.outputs and not graph.padding[0])
        new, summed = (math.prod(graph.sizes[index] for index in part) for part in (term.new, need.summed))
        if graph.weight_shape:
            new, summed = graph.weight_shape[0] if writes else new, graph.weight_shape[1] if reads else summed
        yield Meeting(
            term, members, done, indices, axes, need, order, wanted, after, reads, writes, closes, new, summed
        )
        order = after


def positions(tree: Tree) -> frozenset[int]:
    """The positions of a tree's cores."""
    return frozenset({tree}) if isinstance(tree, int) else positions(tree[0]) | positions(tree[1])
