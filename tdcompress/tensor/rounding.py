"""Smaller bonds for cores that are given: the components of least norm go, in the gauge in which norms say that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .contraction.einsum import Term, contract
from .graph import Graph
from .norm import component_norms, squared_norm

_TINY = 1e-12  # of the largest eigenvalue: below it a direction is rounding


def energies(graph: Graph, cores: Sequence[Tensor], bond: str) -> Tensor:
    """The share of ||W||^2 that each component of ``bond`` holds, descending: what is lost with it.

    A bond that separates the network has the squared singular values of that unfolding. On a cycle the bond's other end
    counts as a mode. Components of a hyperedge are not orthogonal: their shares may add up to more than one. W is all
    that the modes hold, padding included.
    """
    return _gauge(graph, [core.double() for core in cores], bond)[0]


def truncated(graph: Graph, cores: Sequence[Tensor], ranks: Mapping[str, int]) -> tuple[Graph, list[Tensor]]:
    """The graph with bonds no larger than ``ranks``, and cores for it; W changes by what the cut components held.

    One bond after the other, each in the gauge in which its components are orthogonal seen from both of its ends and
    have equal norms on both (the canonical form of Vidal 2003, *Efficient classical simulation of slightly entangled
    quantum computations*; a hyperedge's components are only sorted); each block of it for itself, where cores share
    modes.
    """
    found = [core.double() for core in cores]
    for bond, size in graph.ranks.items():
        if ranks[bond] < size:
            _, changes = _gauge(graph, found, bond)
            for position, change in changes.items():
                found[position] = _changed(graph, position, bond, found[position], change[..., : ranks[bond]])
            graph = graph.with_ranks({bond: ranks[bond]})
    return graph, [new.to(core) for new, core in zip(found, cores, strict=True)]


def _changed(graph: Graph, position: int, bond: str, core: Tensor, change: Tensor) -> Tensor:
    """A core with ``bond`` multiplied by a matrix (bond, component), one for each block of it."""
    blocks, axis = graph.blocks[bond], graph.cores[position].indices.index(bond)
    lead = [graph.cores[position].indices.index(block) for block in blocks]
    moved = core.movedim([*lead, axis], [*range(len(lead)), -1])
    flat = moved.reshape(*moved.shape[: len(lead)], -1, moved.shape[-1]) @ change
    return flat.reshape(*moved.shape[:-1], -1).movedim([*range(len(lead)), -1], [*lead, axis])


def _gauge(graph: Graph, cores: Sequence[Tensor], bond: str) -> tuple[Tensor, dict[int, Tensor]]:
    """The energies of the components, and for each core that carries ``bond`` the matrix (bond, component) to apply.

    A matrix for each block of the bond.
    """
    graph, carriers = graph.whole, graph.carriers[bond]
    if len(carriers) > 2:
        norms = component_norms(graph, cores, bond)
        order = norms.argsort(descending=True)
        chosen = torch.eye(len(norms), dtype=norms.dtype, device=norms.device)[:, order]
        return _shares(norms[order], squared_norm(graph, cores)), dict.fromkeys(carriers, chosen)
    left_gram, right_gram = (_gram(graph, cores, bond, end) for end in carriers)
    even = _even(left_gram, right_gram)
    left_values, left = _eigen(left_gram * even[..., None] * even[..., None, :])
    right_values, right = _eigen(right_gram / even[..., None] / even[..., None, :])
    u, values, vh = torch.linalg.svd(
        left_values.sqrt()[..., None] * (left.mT @ right) * right_values.sqrt()[..., None, :]
    )
    scale = values.sqrt()[..., None, :]
    changes = {
        carriers[0]: even[..., None] * (left * _inverse_root(left_values)[..., None, :]) @ u * scale,
        carriers[1]: (right * _inverse_root(right_values)[..., None, :]) / even[..., None] @ vh.mT * scale,
    }
    return _shares(values.square().reshape(-1, values.shape[-1]).sum(0), values.square().sum()), changes


def _even(left: Tensor, right: Tensor) -> Tensor:
    """Powers of two, one for each component, that bring its norms on the two sides of a bond near each other.

    From the gram matrices of both. Else one that is tiny on one side would be taken for rounding there.
    """
    ratio = right.diagonal(dim1=-2, dim2=-1) / left.diagonal(dim1=-2, dim2=-1)
    ratio = torch.where((ratio > 0) & ratio.isfinite(), ratio, 1.0)
    return torch.exp2((ratio.log2() / 4).round())


def _shares(energies: Tensor, whole: Tensor) -> Tensor:
    """What part of ``whole`` each of these is; none of nothing."""
    return energies / whole if whole > 0 else torch.zeros_like(energies)


def _gram(graph: Graph, cores: Sequence[Tensor], bond: str, end: int) -> Tensor:
    """The branch at a core ``end`` of ``bond``, contracted with a copy of itself over all modes but that bond of both.

    On a cycle it is the whole network, and the copies share the bond's other end, as if it were a mode. A matrix for
    each block of the bond.
    """
    terms = []
    branch = next(part for part in graph.branches(bond) if end in part)
    for copy in ("", "'"):
        for position in sorted(branch):
            core, value = graph.cores[position], cores[position]
            names = [index if index in graph.modes else f"{index}{copy}" for index in core.indices]
            if position != end:
                names = [f"{bond}|" if index == bond else name for index, name in zip(core.indices, names, strict=True)]
            terms.append(Term(tuple(names), value))
    blocks = graph.blocks[bond]
    (gram,) = contract(terms, (*blocks, bond, f"{bond}'"))
    return gram.value


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    return values.clamp(min=0), vectors


def _inverse_root(values: Tensor) -> Tensor:
    return torch.where(values > _TINY * values.max(-1, keepdim=True).values, values, torch.inf).rsqrt()
