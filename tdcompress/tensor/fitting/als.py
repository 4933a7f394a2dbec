"""Alternating least squares on the cores of any graph, cycles and hyperedges included."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..contraction.einsum import Term, contract
from ..graph import Graph

RIDGE = {torch.float32: 1e-7, torch.float64: 1e-13}
"""What is added to a Gram matrix's diagonal, as a part of its trace: about the rounding of the products with W."""


TIKHONOV = 0.03
"""The penalty on the cores' squared norms, as a part of the squared error times the part of ||W||^2 that is found."""

WORK = 2e11
"""Multiply-adds after which a fit stops, some seconds of one processor core."""


def alternate(
    graph: Graph,
    weight: Tensor,
    cores: Sequence[Tensor],
    sweeps: int,
    limit: float = WORK,
    tolerance: float = 3e-4,
    tikhonov: float = TIKHONOV,
    least: int = 2,
) -> list[Tensor]:
    """Cores, in double precision, that fit ``weight`` (one dimension per mode) better than ``cores`` do.

    At most ``sweeps`` sweeps, or what ``limit`` multiply-adds allow, but ``least`` at any price; stops when one lowers
    the squared error by less than ``tolerance`` of it. Where cores have more parameters than W needs, or cancel one
    another, nothing else bounds their norms: each sweep adds l sum ||core||^2 to what is minimised, l such that it
    vanishes with the error and with what is found (a Tikhonov term; Navasca et al. 2008, *Swamp reducing technique for
    tensor decomposition*). ``tikhonov``: how much of it; without, What ends as large as it should be, <W, What> =
    ||What||^2.
    """
    fit = Alternation(graph, weight, list(cores), tikhonov)
    before = math.inf
    for _ in range(min(sweeps, max(least, int(limit / work(graph))))):
        error = fit.sweep()
        if before - error <= tolerance * error:
            break
        before = error
    return fit.cores


def work(graph: Graph) -> int:
    """About the multiply-adds of a sweep: for each core a product with W and a Gram matrix, composed and factored."""
    sizes = [math.prod(graph.sizes[i] for i in core.indices if i not in graph.modes) for core in graph.cores]
    return sum(size * (graph.dense_parameters + 2 * size**2) for size in sizes)


def balanced(graph: Graph, cores: Sequence[Tensor], rounds: int = 100) -> list[Tensor]:
    """The same network with its scale shared evenly: along every bond each slice has the same norm on all cores.

    Of all diagonal rescalings of the bonds, in each of their blocks, this has the smallest sum of the cores' squared
    norms.
    """
    cores = list(cores)
    for _ in range(rounds):
        worst = 1.0
        for bond in graph.bonds:
            slices, places = (*graph.blocks[bond], bond), graph.carriers[bond]
            norms = torch.stack([_slice_norms(Term(graph.cores[k].indices, cores[k]), slices) for k in places])
            scales = norms.log().mean(0).exp() / norms
            scales = torch.where((norms > 0).all(0), scales, 1.0)  # a term that is zero stays it
            worst = max(worst, float(scales.max()), float((1 / scales).max()))
            for k, scale in zip(places, scales, strict=True):
                cores[k] = cores[k] * _aligned(Term(slices, scale), graph.cores[k].indices)
        if worst < 1 + 1e-3:
            break
    return cores


def _slice_norms(core: Term, indices: Sequence[str]) -> Tensor:
    """Of every slice with certain values of ``indices``."""
    lead = len(indices)
    value = core.value.movedim([core.indices.index(i) for i in indices], list(range(lead)))
    return value.flatten(lead).norm(dim=lead) if value.dim() > lead else value.abs()


@dataclass(frozen=True)
class Part:
    """A factor of a Kronecker product that acts on a tensor: the axes that it is over, and the matrix.

    A matrix for each entry of the axes ``blocks``; with one dimension less diagonals.
    """

    axes: list[int]
    matrix: Tensor
    blocks: list[int] = field(default_factory=list)

    def times(self, core: Tensor, matrix: Tensor | None = None, solve: bool = False) -> Tensor:
        """The product with ``core``, or that of ``matrix`` in the part's place; ``solve``: the solution with these
        Cholesky factors."""
        matrix = self.matrix if matrix is None else matrix
        batch, axes = len(self.blocks), [*self.blocks, *self.axes]
        lead = list(range(len(axes)))
        moved = core.movedim(axes, lead)
        flat = moved.reshape(*moved.shape[:batch], matrix.shape[batch], -1)
        if matrix.dim() == batch + 1:
            flat = matrix[..., None] * flat
        else:
            flat = torch.cholesky_solve(flat, matrix) if solve else matrix @ flat
        return flat.reshape(moved.shape).movedim(lead, axes)


Parts = list[Part]
"""A Gram matrix."""


class Alternation:
    """The state of one fit.

    A core X enters W linearly: its best value solves X G = V, where R is the network without X, V = W R over the
    core's indices (the MTTKRP of CP) and G = R R over its bonds. Both are computed on a dimension tree (Phan et al.
    2013, section III): halves of the cores share what is contracted with the other half.
    """

    def __init__(self, graph: Graph, weight: Tensor, cores: list[Tensor], tikhonov: float = TIKHONOV) -> None:
        self.graph, self.cores, self.dtype = graph, cores, weight.dtype
        self.tikhonov, self.penalty = tikhonov, 0.0
        self.solved: tuple[Tensor, Tensor, Parts] = (weight, weight, [])  # the last core, its V and its G in parts
        self.norm = float(weight.double().square().sum())
        self.error = self.norm
        # In the order of the cores, so that products with the outermost ones read it as a matrix, without a copy.
        order = tuple(dict.fromkeys(i for core in graph.cores for i in core.indices if i in graph.modes))
        self.weight = Term(order, weight.permute([graph.modes.index(i) for i in order]).contiguous())

    def sweep(self) -> float:
        """Solve for every core once; returns the squared error, which grows by no more than the penalty gains."""
        self.cores = balanced(self.graph, self.cores, rounds=1)
        energy = sum(float(core.square().sum()) for core in self.cores)
        found = 1 - self.error / self.norm
        self.penalty = self.tikhonov * max(self.error * found, 0.0) / energy if energy else 0.0
        self.solve_all()
        core, target, parts = self.solved
        image = core
        for part in parts:
            image = part.times(image)
        # ||W - What||^2 = ||W||^2 - 2 <V, X> + <X G, X>
        self.error = self.norm - float((core * (2 * target - image)).sum())
        return self.error

    def solve_all(self) -> None:
        """Solve for every core once."""
        self._visit(tuple(range(len(self.cores))), [self.weight], [])

    def _visit(self, members: tuple[int, ...], weight: list[Term], gram: list[Term]) -> None:
        """Solve for ``members``; ``weight`` and ``gram``: W and the copies, contracted with all other cores."""
        if len(members) == 1:
            self.solve(members[0], weight, gram)
            return
        half = len(members) // 2
        halves = members[:half], members[half:]
        for part, others in (halves, halves[::-1]):
            kept = tuple(dict.fromkeys(i for k in part for i in self.graph.cores[k].indices))
            bonds = tuple(i for i in kept if i in self.graph.bonds)
            beyond = self.graph.beyond(part)
            blocks = tuple(i for i in kept if i in self.graph.modes and i in beyond)
            twins = [twin for k in others for twin in self._twins(k)]
            cores = [Term(self.graph.cores[k].indices, self.cores[k].to(self.dtype)) for k in others]
            self._visit(
                part,
                contract([*weight, *cores], kept),
                contract([*gram, *twins], (*blocks, *bonds, *map(_primed, bonds))),
            )

    def _twins(self, k: int) -> Iterator[Term]:
        indices, core = self.graph.cores[k].indices, self.cores[k].to(self.dtype)
        yield Term(indices, core)
        yield Term(tuple(i if i in self.graph.modes else _primed(i) for i in indices), core)

    def solve(self, k: int, weight: list[Term], gram: list[Term]) -> None:
        """Replace core ``k`` by X + (V - X G - l X) (G + l + ridge)^-1, which lowers the error and the penalty's sum.

        Where the rest of the network falls apart without the core, G is the Kronecker product of the parts' Gram
        matrices, each over its own bonds, and is inverted part by part: with the p-th root of l on each of p parts
        their product is at least G + l.
        """
        core = self.cores[k]
        target, parts = self.equations(k, weight, gram)
        image = core
        for part in parts:
            image = part.times(image)
        step = target - image - self.penalty * core
        for part in parts:
            step = part.times(step, self._factor(part.matrix, self.penalty ** (1 / len(parts))), solve=True)
        self.cores[k] = core + step
        self.solved = self.cores[k], target, parts

    def equations(self, k: int, weight: list[Term], gram: list[Term]) -> tuple[Tensor, Parts]:
        """V and G of core ``k``, in double precision."""
        indices = self.graph.cores[k].indices
        target, parts = torch.ones((), dtype=torch.float64, device=self.cores[k].device), []
        for term in weight:
            target = target * _aligned(term, indices).double()
        for term in gram:
            blocks = [i for i in term.indices if i in self.graph.modes]
            bonds = [i for i in term.indices if i in self.graph.bonds]
            size = math.prod(self.graph.sizes[bond] for bond in bonds)
            matrix = term.value.double().reshape(*term.value.shape[: len(blocks)], size, size)
            parts.append(Part([indices.index(i) for i in bonds], matrix, [indices.index(i) for i in blocks]))
        return target, parts

    def _factor(self, matrix: Tensor, penalty: float) -> Tensor:
        """The Cholesky factors of Gram matrices, penalty and ridge, larger where cancellation left one indefinite."""
        traces = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        ridge = RIDGE[self.dtype] * traces.abs() + torch.finfo(torch.float64).tiny
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        while True:
            factor, failed = torch.linalg.cholesky_ex(matrix + (penalty + ridge) * identity)
            if not failed.any():
                return factor
            ridge = torch.where(failed[..., None, None] > 0, 100 * ridge, ridge)


def _primed(index: str) -> str:
    return f"{index}'"


def _aligned(term: Term, indices: tuple[str, ...]) -> Tensor:
    """The term's value, permuted and with dimensions of size one, so that it broadcasts over ``indices``."""
    order = [term.indices.index(i) for i in indices if i in term.indices]
    value = term.value.permute(order)
    return value.reshape([term.value.shape[term.indices.index(i)] if i in term.indices else 1 for i in indices])
