"""Contracting named tensors down to the indices that are wanted, along an order that is planned once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from ..graph import Core, Graph
from .plan import Contraction, compile_tree
from .search import greedy_tree

Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Term:
    """A tensor and the names of its indices, in storage order."""

    indices: tuple[str, ...]
    value: Tensor


def contract(terms: Sequence[Term], keep: Sequence[str]) -> list[Term]:
    """Sum every index that is not in ``keep``; an index may sit on any number of terms.

    Terms that share no index, not even through others, are not multiplied with one another: one tensor comes back for
    each connected part, its indices in the order of ``keep``.
    """
    sizes = {i: size for term in terms for i, size in zip(term.indices, term.value.shape, strict=True)}
    parts = _compiled(tuple(term.indices for term in terms), tuple(keep), tuple(sizes.items()))
    return [Term(kept, contraction([terms[k].value for k in members])) for members, kept, contraction in parts]


@lru_cache(maxsize=4096)
def _compiled(
    operands: tuple[tuple[str, ...], ...], keep: tuple[str, ...], sizes: Sizes
) -> list[tuple[tuple[int, ...], tuple[str, ...], Contraction]]:
    cores = tuple(Core(str(k), indices) for k, indices in enumerate(operands))
    compiled = []
    for members in map(sorted, Graph(cores, keep, dict(sizes)).branches()):
        carried = {index for k in members for index in operands[k]}
        kept = tuple(index for index in keep if index in carried)
        part = Graph(tuple(cores[k] for k in members), kept, dict(sizes))
        compiled.append((tuple(members), kept, compile_tree(part, greedy_tree(part))))
    return compiled
