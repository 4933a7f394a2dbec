"""How many components of a matrix are signal: empirical variational Bayesian matrix factorisation."""

from __future__ import annotations

import torch
from torch import Tensor

_GRID = 256
_REFINEMENTS = 3


def vbmf_rank(singular_values: Tensor, rows: int, columns: int) -> int:
    """The rank that empirical VBMF gives a ``rows`` x ``columns`` matrix with these singular values, noise unknown.

    Nakajima et al. 2013, *Global analytic solution of fully-observed variational Bayesian matrix factorization*, JMLR
    14, in the closed form of Nakajima et al. 2015, *Condition for perfect dimensionality recovery by variational
    Bayesian PCA*, JMLR 16: a component counts if its singular value exceeds a threshold, at the noise variance that
    minimises the free energy. Kim et al. 2016 choose Tucker-2 ranks by it. Zero for pure noise and a matrix of zeros.
    """
    small, large = min(rows, columns), max(rows, columns)
    squares = torch.zeros(small, dtype=torch.float64, device="cpu")
    squares[: len(singular_values)] = singular_values.double().cpu().square().sort(descending=True).values[:small]
    if squares[0] == 0:
        return 0
    aspect = small / large
    tau = 2.5129 * aspect**0.5  # approximately the root of an equation that has no closed form (both papers)
    edge = (1 + tau) * (1 + aspect / tau)
    low, high = _noise_bounds(squares, large, aspect, edge)
    for _ in range(_REFINEMENTS):
        grid = torch.logspace(low.log10(), high.log10(), _GRID, dtype=torch.float64, device="cpu")
        best = int(_free_energy(squares, grid, large, aspect, edge).argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    return int((squares > large * grid[best] * edge).sum())


def _noise_bounds(squares: Tensor, large: int, aspect: float, edge: float) -> tuple[Tensor, Tensor]:
    """Between which variances the noise lies: the mean square, and what the components that cannot be signal leave."""
    small = len(squares)
    signal = min(max(-int(-small // (1 + aspect)) - 1, 0), small - 1)  # the most components that can be signal
    high = squares.sum() / (small * large)
    low = torch.maximum(squares[signal] / (large * edge), squares[signal:].mean() / large)
    return torch.minimum(torch.maximum(low, 1e-12 * high), high), high


def _free_energy(squares: Tensor, variance: Tensor, large: int, aspect: float, edge: float) -> Tensor:
    """The free energy, up to constants, at each noise variance."""
    x = (squares / (large * variance[:, None])).clamp(min=1e-300)
    signal = x > edge
    centred = torch.where(signal, x, edge) - (1 + aspect)
    tau = (centred + (centred.square() - 4 * aspect).sqrt()) / 2
    gained = ((tau + 1) / x).log() - tau + aspect * (tau / aspect + 1).log()
    return (x + torch.where(signal, gained, -x.log())).sum(1)
