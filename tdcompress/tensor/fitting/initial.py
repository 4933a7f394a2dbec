"""Initial cores: the reconstructed weight starts with the mean square of its dense twin's weight, or as its fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..graph import Core, Graph
from ..norm import squared_norm
from .decompose import Algorithm, decompose, own


def variance_law(graph: Graph, weight: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
    """Gaussian cores whose reconstruction W has the mean square of the dense ``weight``.

    Entries of W are sums of products of independent zero-mean entries, so Var(W) = prod(bond sizes) * prod(core
    variances); every core gets the same norm. What a single draw misses of it (much, at low rank) is corrected
    exactly by one factor on all cores, from the norm of the network.
    """
    cores = [
        torch.randn(graph.shape(core), generator=generator, dtype=torch.float64, device="cpu") for core in graph.cores
    ]
    return _scaled(graph, cores, weight)


def orthogonal(graph: Graph, weight: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
    """Cores of the same norm, each a semi-orthogonal matrix towards the next core on the way to the root.

    Products of Gaussian matrices are badly conditioned, the more so the more cores there are; products of
    semi-orthogonal ones are not (Saxe et al. 2014, section 4). The root, the core with the most bonds, is unfolded
    along its longest index. Where cores share modes, each block is such a matrix.
    """
    towards = towards_root(graph)
    cores = []
    for core in graph.cores:
        blocks, columns = towards[core.name]
        rows = [index for index in core.indices if index not in (*blocks, *columns)]
        order = [core.indices.index(index) for index in (*blocks, *rows, *columns)]
        batch, height, width = (math.prod(graph.sizes[index] for index in part) for part in (blocks, rows, columns))
        shape = (batch, max(height, width), min(height, width))
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        matrix = torch.linalg.qr(drawn)[0] * math.sqrt(shape[1])
        matrix = matrix if height >= width else matrix.mT
        matrix = matrix.reshape([graph.sizes[core.indices[k]] for k in order])
        cores.append(matrix.permute([order.index(k) for k in range(len(order))]).contiguous())
    return _scaled(graph, cores, weight)


def spectral(graph: Graph, weight: Tensor, seed: int = 0, algorithm: Algorithm = own) -> list[Tensor]:
    """A decomposition of the dense ``weight``, its scale shared evenly over the cores.

    For a matrix it is the truncated SVD with sqrt(singular values) on either side (Khodak et al. 2021, section 3), and
    what truncation takes of the mean square is given back by one factor. The fit need not be tight: few sweeps do.
    """
    found = _decomposed(graph, weight, 4, seed, algorithm)
    return _scaled(graph, [core.double() for core in found], weight) if weight.float().any() else found


def fit(graph: Graph, weight: Tensor, seed: int = 0, algorithm: Algorithm = own) -> list[Tensor]:
    """A decomposition of a trained ``weight`` as near to it as can be: nothing is given back of its norm."""
    return _decomposed(graph, weight, 100, seed, algorithm)


def rough(graph: Graph, weight: Tensor, seed: int = 0, algorithm: Algorithm = own) -> list[Tensor]:
    """``fit`` in a tenth of the sweeps, for a training that goes on: what they leave it makes up for in a few steps."""
    return _decomposed(graph, weight, 10, seed, algorithm)


Init = Callable[..., list[Tensor]]
"""Takes a graph and the dense weight; those of ``FITTED`` a ``seed`` and an ``algorithm``, others a ``generator``."""

INITS: dict[str, Init] = {
    "variance": variance_law,
    "orthogonal": orthogonal,
    "spectral": spectral,
    "fit": fit,
    "rough": rough,
}
"""From a graph and the dense weight that it stands for to initial cores, single precision."""

FITTED = ("spectral", "fit", "rough")
"""Those that decompose the weight."""

OF_TRAINED = ("fit", "rough")
"""Those that keep what a weight has learned."""


def _decomposed(graph: Graph, weight: Tensor, sweeps: int, seed: int, algorithm: Algorithm) -> list[Tensor]:
    """``decompose`` in single precision; of a weight that is zero throughout, cores that can learn."""
    if weight.float().any():
        return decompose(graph, weight.float(), sweeps, seed, algorithm)
    return variance_law(graph, weight, torch.Generator().manual_seed(seed))


def _scaled(graph: Graph, cores: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """Cores of one norm, so that their reconstruction has the norm of ``weight``.

    A core's gradient is as large as the others are, so a core of smaller norm would learn faster than the rest; cores
    of one norm keep it under gradient flow (Du et al. 2018, theorem 2.1). Of a weight that is zero, as last layers of
    residual branches may begin, only the largest core is zero: were all of them, no gradient would ever reach one (Hu
    et al. 2021, section 4.1). The others are as those of a weight with torch's own initial variance, 1 / (3 fan-in).
    """
    cores = [core / norm if (norm := core.norm()) else core for core in cores]
    drawn, wanted = float(squared_norm(graph, cores)), float(weight.double().square().sum())
    factor = ((wanted or len(weight) / 3) / drawn) ** (0.5 / len(cores))
    cores = [(core * factor).float() for core in cores]
    if not wanted:
        max(cores, key=Tensor.numel).zero_()
    return cores


def towards_root(graph: Graph) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """For each core the modes and the bonds that it shares with the next core on a shortest way to the root.

    Of the root the modes that others have too, and its longest other index.
    """

    def bonds(core: Core) -> list[str]:
        return [index for index in core.indices if index not in graph.modes]

    root = max(graph.cores, key=lambda core: len(bonds(core)))
    blocks = tuple(index for index in root.indices if index in graph.modes and len(graph.carriers[index]) > 1)
    longest = max((index for index in root.indices if index not in blocks), key=lambda index: graph.sizes[index])
    towards: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {root.name: (blocks, (longest,))}
    border = [root]
    for core in border:
        for other in graph.cores:
            shared = tuple(index for index in bonds(other) if index in core.indices)
            if shared and other.name not in towards:
                towards[other.name] = graph.blocks[shared[0]], shared
                border.append(other)
    return towards
