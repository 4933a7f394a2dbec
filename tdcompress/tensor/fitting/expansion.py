"""Exact cores where a hyperedge is large enough to name every entry of a weight but those along one core."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..graph import Graph


def expansions(graph: Graph, weight: Tensor) -> Iterator[tuple[Graph, list[Tensor]]]:
    """For each bond that all cores carry and that has a size for it: the graph with no other bonds, and cores for it.

    W is the sum, over all entries of all modes but those of the largest core, of the fibre of W there times unit
    vectors: the construction behind the bound of the CP rank (Kolda and Bader 2009, section 3.1). ``weight``: one
    dimension per mode.
    """
    whole = range(len(graph.cores))
    largest = max(whole, key=lambda k: graph.mode_size([k]))
    along = [i for i in graph.cores[largest].indices if i in graph.modes]
    others = [i for i in graph.modes if i not in along]
    fibres = weight.permute([graph.modes.index(i) for i in (*along, *others)])
    fibres = fibres.reshape(graph.mode_size([largest]), -1)
    terms = fibres.shape[1]
    entries = torch.arange(terms, device=weight.device).reshape([graph.sizes[i] for i in others])
    for bond in graph.bonds:
        if len(graph.carriers[bond]) < len(graph.cores) or graph.sizes[bond] < terms:
            continue
        found = graph.with_ranks({**dict.fromkeys(graph.bonds, 1), bond: terms})
        cores = []
        for k, core in enumerate(graph.cores):
            own, beside = along, list[str]()
            if k == largest:
                value = fibres
            else:
                # Row m of the identity over the core's modes, for each term in which their entry is m; the same for all
                # entries of those that the largest core has as well.
                own, beside = [i for i in core.indices if i in others], [i for i in core.indices if i in along]
                rest = [i for i in others if i not in own]
                order = entries.permute([others.index(i) for i in (*own, *rest)])
                order = order.reshape(math.prod(graph.sizes[i] for i in own), -1)
                value = fibres.new_zeros(len(order), terms).scatter_(1, order, 1.0)
            names = [*own, bond, *(i for i in core.indices if i in graph.bonds and i != bond)]
            value = value.reshape([found.sizes[i] for i in names])
            value = value.expand(*(found.sizes[i] for i in beside), *value.shape)
            names = [*beside, *names]
            cores.append(value.permute([names.index(i) for i in core.indices]).contiguous())
        yield found, cores
