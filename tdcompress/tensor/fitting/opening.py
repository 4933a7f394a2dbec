"""Truncation on graphs with cycles: cores are cut off until a tree is left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch.nn.functional as F
from torch import Tensor

from ..caps import capped
from ..graph import Graph
from .truncation import leading, truncate


def openings(graph: Graph, weight: Tensor) -> Iterator[tuple[Graph, list[Tensor]]]:
    """Fits of ``weight`` (double precision, one dimension per mode): the graph at no larger ranks, and cores for it.

    A core is cut off: it becomes the leading basis of its modes, and its bonds, which carry that to the rest of the
    network, are modes there. With the first of two bonds at size one this opens a ring to a train; with other sizes it
    is TR-SVD (Zhao et al. 2016, algorithm 1) from any core and any r0. There is one fit for each core and, where the
    network has as many parameters as W, each way to divide the core's modes over its bonds in powers of two. All are
    projections of W: the best has the largest norm. Cores on a hyperedge, those that share a mode with others, and
    those whose cut leaves several parts are passed over.
    """
    if graph.is_tree:
        graph = capped(graph, graph.ranks)
        yield graph, truncate(graph, weight, 0)
        return
    for k, core in enumerate(graph.cores):
        own = [i for i in core.indices if i in graph.modes]
        bonds = [i for i in core.indices if i not in graph.modes]
        others = [i for i in graph.modes if i not in own]
        cut = Graph(graph.cores[:k] + graph.cores[k + 1 :], (*bonds, *others), graph.sizes)
        if any(len(graph.carriers[bond]) > 2 for bond in bonds) or len(cut.branches()) > 1:
            continue
        if any(len(graph.carriers[mode]) > 1 for mode in own):
            continue
        matrix = weight.permute([graph.modes.index(i) for i in (*own, *others)]).reshape(graph.mode_size([k]), -1)
        few = graph.parameters < graph.dense_parameters
        for sizes in _divided(len(matrix), [graph.sizes[bond] for bond in bonds], few):
            size = math.prod(sizes)
            basis = leading(matrix, size)
            basis = F.pad(basis, (0, size - basis.shape[1]))
            smaller = graph.with_ranks(dict(zip(bonds, sizes, strict=True)))
            value = basis.reshape([smaller.sizes[i] for i in (*own, *bonds)])
            value = value.permute([(*own, *bonds).index(i) for i in core.indices]).contiguous()
            cut = Graph(cut.cores, cut.modes, smaller.sizes)
            projected = (basis.T @ matrix).reshape([cut.sizes[i] for i in cut.modes])
            for rest, cores in islice(openings(cut, projected), 1):
                yield smaller.with_ranks(rest.ranks), [*cores[:k], value, *cores[k:]]


def _divided(number: int, limits: Sequence[int], open: bool) -> Iterator[tuple[int, ...]]:
    """Sizes within ``limits`` whose product is ``number`` or as near as the last allows; ``open``: all others are 1."""
    first, *others = limits
    top = min(number, first)
    if not others:
        yield (top,)
        return
    sizes = {1} if open else {top, *(2**power for power in range(top.bit_length()) if 2**power < top)}
    for size in sorted(sizes):
        for rest in _divided(-(-number // size), others, open):
            yield (size, *rest)
