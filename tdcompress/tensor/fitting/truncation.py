"""Fits on graphs without cycles or hyperedges: truncation from the leaves to the root, then alternating updates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..contraction.einsum import Term, contract
from ..graph import Graph

EXACT = 1024  # up to this size a Gram matrix is decomposed whole, in well under a second
OVERSAMPLING, ITERATIONS = 16, 6


def truncate(graph: Graph, weight: Tensor, sweeps: int, seed: int = 0, tolerance: float = 1e-3) -> list[Tensor]:
    """Cores, in double precision, that fit ``weight`` (one dimension per mode).

    Every core but the root becomes an orthonormal basis of what its branch spans of W, leaves first, in each of the
    blocks of its bond to the next core: TT-SVD (Oseledets 2011, algorithm 1), ST-HOSVD (Vannieuwenhoven et al. 2012)
    and hierarchical truncation (Grasedyck 2010, section 3) are this on their graphs, and so is the SVD of every block
    on that of a block tensor train. The squared error is at most the sum, over the bonds, of the singular values'
    squares that their unfoldings lose, hence within sqrt(number of different unfoldings) of the best. Then at most
    ``sweeps`` sweeps over the bonds, each setting the two cores at its ends to their joint optimum (HOOI on the Tucker
    graph, the two-site updates of DMRG on the train), until one lowers the squared error by less than ``tolerance`` of
    it.
    """
    fit = _Truncation(graph, weight.double(), torch.Generator().manual_seed(seed))
    before = fit.error
    for _ in range(sweeps if len(graph.bonds) > 1 else 0):
        fit.sweep()
        if before - fit.error <= tolerance * before:
            break
        before = fit.error
    return fit.unfused()


class _Truncation:
    """The state of one fit: a term per core, in which all indices shared with the parent are one, ``^`` and its name.

    Bonds are as small as what their unfolding spans, at most the product of their graph's sizes.
    """

    def __init__(self, graph: Graph, weight: Tensor, generator: torch.Generator) -> None:
        self.graph, self.generator = graph, generator
        self.weight = Term(graph.modes, weight)
        self.norm = float(weight.square().sum())
        self.root = max(range(len(graph.cores)), key=lambda k: len(self._neighbours(k)))
        self.children: dict[int, list[int]] = {}
        self.shared: dict[int, tuple[str, ...]] = {self.root: ()}
        self.blocks: dict[int, tuple[str, ...]] = {}
        self.terms: dict[int, Term] = {}
        self._plant(self.root)
        rest = self._fold(self.root, self.weight)
        self.terms[self.root] = _moved(rest, self.indices(self.root))

    @property
    def error(self) -> float:
        """The squared error: all cores but the root are orthonormal."""
        return self.norm - float(self.terms[self.root].value.square().sum())

    def indices(self, k: int) -> tuple[str, ...]:
        """The fused indices of a core, the one towards the parent last."""
        own = tuple(i for i in self.graph.cores[k].indices if i in self.graph.modes)
        return (*own, *(self.up(child) for child in self.children[k]), *((self.up(k),) if k != self.root else ()))

    def up(self, k: int) -> str:
        """The fused index between a core and its parent."""
        return f"^{self.graph.cores[k].name}"

    def rank(self, k: int) -> int:
        """The largest size of a core's index towards its parent."""
        size = 1
        for bond in self.shared[k]:
            size *= self.graph.sizes[bond]
        return size

    def _neighbours(self, k: int) -> list[int]:
        found = {j for i in self.graph.cores[k].indices if i in self.graph.bonds for j in self.graph.carriers[i]}
        return sorted(found - {k})

    def _plant(self, k: int) -> None:
        self.children[k] = [j for j in self._neighbours(k) if j not in self.shared]
        for child in self.children[k]:
            self.shared[child] = tuple(
                i for i in self.graph.cores[child].indices if k in self.graph.carriers[i] and i in self.graph.bonds
            )
            self.blocks[child] = self.graph.blocks[self.shared[child][0]]
            self._plant(child)

    def _fold(self, k: int, rest: Term) -> Term:
        """Truncate the branches below ``k``; returns what is left of W over their bonds."""
        for child in self.children[k]:
            rest = self._split(child, self._fold(child, rest))
        return rest

    def _split(self, k: int, joint: Term) -> Term:
        """Set core ``k`` to the leading left basis of ``joint`` in each block; returns the projection on it."""
        blocks, own = self.blocks[k], self.indices(k)[:-1]
        inner, others = [i for i in own if i not in blocks], [i for i in joint.indices if i not in own]
        value = _moved(joint, (*blocks, *inner, *others)).value
        lead, rest = value.shape[: len(blocks)], value.shape[len(blocks) :]
        rows, columns = rest[: len(inner)], rest[len(inner) :]
        matrix = value.reshape(*lead, rows.numel(), columns.numel())
        basis = leading(matrix, self.rank(k), self.generator)
        self.terms[k] = _moved(Term((*blocks, *inner, self.up(k)), basis.reshape(*lead, *rows, -1)), self.indices(k))
        return Term((*blocks, self.up(k), *others), (basis.mT @ matrix).reshape(*lead, -1, *columns))

    def sweep(self) -> None:
        """Update both ends of every bond, those of the deepest bonds first; the root has the scale again at the end."""
        for child in self.children[self.root]:
            self._update(child, self.root, self.weight)

    def _update(self, k: int, parent: int, above: Term) -> None:
        """Update the bonds of the branch at ``k``; ``above``: W contracted with all outside the parent's branch."""
        if all(self._is_complete(j) for j in self._branch(k)):
            return  # the branch's basis is complete: nothing is lost there
        siblings = [self.terms[j] for child in self.children[parent] if child != k for j in self._branch(child)]
        below = self._branch(k)[1:]
        if below:
            self._descend(k, parent)
            modes = {i: None for j in self._branch(k) for i in self.graph.cores[j].indices if i in self.graph.modes}
            (inside,) = contract([above, *siblings, self.terms[parent]], [*modes, self.up(k)])
            for child in self.children[k]:
                self._update(child, k, inside)
        kept = {i: None for i in (*self.indices(k), *self.indices(parent)) if i != self.up(k)}
        (joint,) = contract([above, *siblings, *(self.terms[j] for j in below)], [*kept])
        self.terms[parent] = _moved(self._split(k, joint), self.indices(parent))

    def _branch(self, k: int) -> list[int]:
        """The core ``k`` and all below it."""
        return [k, *(j for child in self.children[k] for j in self._branch(child))]

    def _is_complete(self, k: int) -> bool:
        """Whether a core spans all that there is of its rows."""
        inner = (
            size for i, size in zip(self.indices(k), self.terms[k].value.shape, strict=True) if i not in self.blocks[k]
        )
        *rows, columns = inner
        return math.prod(rows) == columns

    def _descend(self, k: int, parent: int) -> None:
        """Make the parent an orthonormal basis towards ``k``, which takes its scale, in each block."""
        blocks, up = self.blocks[k], self.up(k)
        inner = [i for i in self.indices(parent) if i not in (*blocks, up)]
        value = _moved(self.terms[parent], (*blocks, *inner, up)).value
        basis, scale = torch.linalg.qr(value.flatten(len(blocks), -2))
        value = basis.reshape(*value.shape[:-1], -1)
        parents = _moved(Term((*blocks, *inner, up), value), self.indices(parent))
        self.terms[parent] = Term(parents.indices, parents.value.contiguous())
        inner = [i for i in self.indices(k) if i not in (*blocks, up)]
        value = _moved(self.terms[k], (*blocks, *inner, up)).value
        value = (value.flatten(len(blocks), -2) @ scale.mT).reshape(*value.shape[:-1], -1)
        self.terms[k] = _moved(Term((*blocks, *inner, up), value), self.indices(k))

    def unfused(self) -> list[Tensor]:
        """The cores in the graph's order and shapes; what a bond does not need is zero."""
        cores = []
        for k, core in enumerate(self.graph.cores):
            value = self.terms[k].value
            order: list[str] = []
            for axis, index in enumerate(self.indices(k)):
                child = next((c for c in (*self.children[k], k) if index == self.up(c)), None)
                order += [index] if child is None else self.shared[child]
                if child is not None and value.shape[axis] < self.rank(child):
                    missing = list(value.shape)
                    missing[axis] = self.rank(child) - value.shape[axis]
                    value = torch.cat([value, value.new_zeros(missing)], axis)
            value = value.reshape([self.graph.sizes[i] for i in order])
            cores.append(value.permute([order.index(i) for i in core.indices]).contiguous())
        return cores


def leading(matrix: Tensor, rank: int, generator: torch.Generator | None = None) -> Tensor:
    """An orthonormal basis of the ``rank`` leading left singular vectors, fewer where the matrix is smaller.

    ``matrix``: one, or a batch of them; ``generator``: by default one of its own.

    From the Gram matrix of the shorter side, or, where that is long too, by randomised subspace iteration (Halko et al.
    2011, algorithm 4.4).
    """
    *batch, height, width = matrix.shape
    short = min(height, width)
    rank = min(rank, short)
    if rank == height:
        return torch.eye(height, dtype=matrix.dtype, device=matrix.device).expand(*batch, height, height)
    if short > EXACT and 4 * rank < short:
        chance = generator or torch.Generator().manual_seed(0)
        shape = (*batch, height, min(rank + OVERSAMPLING, short))
        start = torch.randn(shape, generator=chance, dtype=matrix.dtype, device="cpu")
        basis = torch.linalg.qr(start.to(matrix.device))[0]
        for _ in range(ITERATIONS):
            basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ basis)[0])[0]
        return basis @ leading(basis.mT @ matrix, rank)
    if height <= width:
        return torch.linalg.eigh(matrix @ matrix.mT)[1][..., -rank:]
    right = torch.linalg.eigh(matrix.mT @ matrix)[1][..., -rank:]
    return torch.linalg.qr(matrix @ right)[0]


def _moved(term: Term, indices: Sequence[str]) -> Term:
    return Term(tuple(indices), term.value.permute([term.indices.index(i) for i in indices]))
