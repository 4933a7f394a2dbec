"""Ranks that a given weight needs: from the singular values of the unfoldings that the bonds of a graph cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .caps import capped, cuts
from .graph import Graph
from .weight import over_modes

Rule = Callable[[Tensor, int, int], int]
"""How many components of matrices to keep, from their singular values (one row a matrix), rows and columns."""


def energy(share: float) -> Rule:
    """Keeps the fewest components that hold ``share`` of the squared norm of all matrices together."""

    def rank(values: Tensor, rows: int, columns: int) -> int:
        held = values.square().reshape(-1, values.shape[-1]).sum(0).cumsum(0)
        # The last sum itself is what it is compared with: no rounding between them.
        return int((held < share * held[-1]).sum()) + 1

    return rank


def unfolding_ranks(graph: Graph, weight: Tensor, rule: Rule) -> Graph:
    """The graph with the bond sizes that ``rule`` gives for the unfoldings of ``weight``, at least one, and capped.

    Those of all blocks, where cores on both sides of a cut share modes.

    ``weight``: the dense weight, as ``weight.over_modes`` takes it. A bond that separates the network into
    two: the rank of that unfolding. A hyperedge: the largest rank of those that set one of its branches against the
    rest, because none of them can exceed a CP rank. A bond on a cycle shares every cut with others: the largest of
    rank^(1/k) over the cuts with the fewest bonds, k of them.
    """
    tensor = over_modes(graph, weight.detach().double())
    known: dict[tuple[frozenset[str], frozenset[str]], int] = {}

    def rank(inside: Iterable[int]) -> int:
        side = frozenset(inside)
        rows = frozenset(mode for mode in graph.modes if side.intersection(graph.carriers[mode]))
        shared = rows.intersection(graph.beyond(side))
        if (rows, shared) not in known:
            known[rows, shared] = max(1, rule(*_unfolded(tensor, graph, rows - shared, shared)))
        return known[rows, shared]

    sizes = {}
    for bond in graph.bonds:
        branches = graph.branches(bond)
        if len(branches) == len(graph.carriers[bond]):
            sizes[bond] = max(rank(branch) for branch in branches[: len(branches) if len(branches) > 2 else 1])
        else:
            found = list(cuts(graph, bond))
            fewest = min(count for _, count in found)
            sizes[bond] = max(
                math.ceil(round(rank(inside) ** (1 / count), 9)) for inside, count in found if count == fewest
            )
    return capped(graph, sizes)


def _unfolded(tensor: Tensor, graph: Graph, rows: frozenset[str], blocks: frozenset[str]) -> tuple[Tensor, int, int]:
    """Singular values, descending, of the unfolding with these modes as rows, its height and width; of every block."""
    lead, first = ([k for k, mode in enumerate(graph.modes) if mode in part] for part in (blocks, rows))
    others = [k for k in range(tensor.dim()) if k not in (*lead, *first)]
    batch, height = (math.prod(tensor.shape[k] for k in part) for part in (lead, first))
    matrix = tensor.permute(*lead, *first, *others).reshape(batch, height, -1)
    width = matrix.shape[2]
    gram = matrix @ matrix.mT if height <= width else matrix.mT @ matrix
    return torch.linalg.eigvalsh(gram).flip(1).clamp(min=0).sqrt(), height, width
