"""The smallest cores of a fit: where components cancel one another, their norms are brought down at the same error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..contraction.einsum import Term
from ..graph import Graph
from ..norm import component_norms, squared_norm
from .als import WORK, Alternation, balanced, work

SLACK = 1e-3
"""By what part the error may grow."""

CANCELLING = 4.0
"""A fit whose components along a bond have squared norms of more than so many times that of their sum cancels."""

SWEEPS, GAIN = 200, 1e-3
"""Most sweeps, and the part of the cores' squared norms that one must take away for another to follow."""

EIGEN = 10
"""About how many times what a sweep of least squares costs one costs that finds eigenvectors."""

DEAREST = 2.5
"""In ``WORK``, the price of a sweep up to which two are made at any rate: above it, minutes of one processor core."""


def cancellation(graph: Graph, cores: Sequence[Tensor]) -> float:
    """The squared norms of the components of W, summed, over that of W; of the bond for which that is largest."""
    whole = float(squared_norm(graph, cores))
    worst = max((float(component_norms(graph, cores, bond).sum()) for bond in graph.bonds), default=whole)
    return worst / whole if whole else 1.0


def bounded(graph: Graph, weight: Tensor, cores: Sequence[Tensor], error: float) -> list[Tensor]:
    """Cores of least sum of squared norms for which ||W - What|| <= ``error``, which those given have at most.

    Error-preserving correction (Phan et al. 2020, *Stable low-rank tensor decomposition for compression of
    convolutional neural networks*, section 3), for the cores of any graph: one after the other becomes the smallest
    that keeps the error, X (G + l)^-1 with the largest l that does, and the scale is shared evenly between sweeps.
    ``weight``: double precision, one dimension per mode. Cores for which a sweep takes too long are given back as they
    are.
    """
    price = EIGEN * work(graph)
    if price > DEAREST * WORK:
        return list(cores)
    correction = _Correction(graph, weight, [core.double() for core in cores], error**2)
    before = sum(float(core.square().sum()) for core in balanced(graph, cores))
    for _ in range(min(SWEEPS, max(2, int(WORK / price)))):
        correction.cores = balanced(graph, correction.cores)
        correction.solve_all()
        energy = sum(float(core.square().sum()) for core in correction.cores)
        if before - energy <= GAIN * before:
            break
        before = energy
    return correction.cores


class _Correction(Alternation):
    """Sweeps over the cores like those of least squares, each to the smallest core within the ``bound``."""

    def __init__(self, graph: Graph, weight: Tensor, cores: list[Tensor], bound: float) -> None:
        super().__init__(graph, weight, cores)
        self.bound = bound

    def solve(self, k: int, weight: list[Term], gram: list[Term]) -> None:
        """Replace core ``k`` by the smallest X for which ||W||^2 - 2 <V, X> + <X G, X> is within the bound.

        In the basis of G's eigenvectors, the entries of X are those of V over eigenvalue + l; the error grows with l.
        """
        core = self.cores[k]
        target, parts = self.equations(k, weight, gram)
        values, bases = torch.ones_like(core), []
        for part in parts:
            eigenvalues, basis = torch.linalg.eigh(part.matrix)
            values = part.times(values, eigenvalues.clamp(min=0))
            target = part.times(target, basis.mT)
            bases.append((part, basis))

        def squared_error(shift: float) -> float:
            found = target / (values + shift)
            return self.norm - float((found * (2 * target - values * found)).sum())

        largest = float(values.max())
        low, high = 1e-16 * largest, 1e4 * largest
        if not squared_error(low) <= self.bound:
            return
        for _ in range(50):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if squared_error(middle) <= self.bound else (low, middle)
        found = target / (values + low)
        for part, basis in bases:
            found = part.times(found, basis)
        self.cores[k] = found
