"""tensorly's algorithms in place of ours: the reference that ours are measured by."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorly
import torch
from tensorly.decomposition import parafac, partial_tucker, tensor_ring_als, tensor_train
from tensorly.tucker_tensor import TuckerTensor
from torch import Tensor

from ...tensor.errors import ConfigError
from ...tensor.fitting.decompose import Algorithm
from ...tensor.fitting.padding import padded
from ...tensor.formats import Format
from ...tensor.graph import Graph
from .arrays import Reading, class_of, reading
from .objects import cores_in


def algorithm(format: Format) -> Algorithm:
    """tensorly's algorithm for cores of this format. Raises ``ConfigError`` where it has none."""
    class_of(format)
    return partial(_fitted, format)


def _fitted(format: Format, graph: Graph, weight: Tensor, sweeps: int, seed: int) -> list[Tensor]:
    """``Algorithm``: the fit of ``weight`` in its own precision, by tensorly's defaults but for sweeps and seed.

    A user's own backend stays as it is. Raises ``ConfigError`` where the algorithm fails.
    """
    read = reading(graph, format)
    run = _ALGORITHMS[class_of(format)]
    try:
        with tensorly.backend_context("pytorch"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of matrices, that they are trivial
            found = run(read, read.tensor(weight), sweeps, seed)
    except (ArithmeticError, RuntimeError, ValueError) as error:  # torch's of linear algebra is a RuntimeError
        raise ConfigError(f"tensorly's {run.__name__.strip('_')} fails: {' '.join(str(error).split())}") from None
    smaller, cores = cores_in(read, found)
    return padded(graph, cores, seed) if smaller.ranks != graph.ranks else cores


def _parafac(read: Reading, tensor: Tensor, sweeps: int, seed: int) -> Any:
    rank = read.size(read.arrays[0].groups[1])
    return parafac(tensor, rank, n_iter_max=sweeps, random_state=seed)


def _partial_tucker(read: Reading, tensor: Tensor, sweeps: int, seed: int) -> Any:
    factors = read.arrays[1:]
    axes = [axis for axis, factor in enumerate(factors) if factor.core is not None]
    ranks = [read.size(factors[axis].groups[1]) for axis in axes]
    (core, found), _ = partial_tucker(tensor, ranks, axes, n_iter_max=sweeps, random_state=seed)
    whole = [torch.eye(size, device=tensor.device).to(tensor) for size in tensor.shape]
    for axis, factor in zip(axes, found, strict=True):
        whole[axis] = factor
    return TuckerTensor((core, whole))


def _tensor_train(read: Reading, tensor: Tensor, sweeps: int, seed: int) -> Any:
    return tensor_train(tensor, _ranks(read), random_state=seed)


def _tensor_ring_als(read: Reading, tensor: Tensor, sweeps: int, seed: int) -> Any:
    return tensor_ring_als(tensor, _ranks(read), n_iter_max=sweeps, random_state=seed)


def _ranks(read: Reading) -> list[int]:
    return [*(read.size(array.groups[0]) for array in read.arrays), read.size(read.arrays[-1].groups[2])]


_ALGORITHMS: dict[str, Callable[[Reading, Tensor, int, int], Any]] = {
    "CPTensor": _parafac,
    "TuckerTensor": _partial_tucker,
    "TTTensor": _tensor_train,
    "TRTensor": _tensor_ring_als,
}
"""Of each class: from a graph's reading, a tensor of its dimensions, most sweeps and a seed to the object."""
