"""Decompositions and compressed layers as tensorly's own objects, and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..layers.base import Factorised
from ..tensor.errors import ConfigError
from ..tensor.formats import find_format
from .single import Decomposition, decomposition
from .tensorly import objects


def to_tensorly(held: Decomposition | Factorised) -> Any:
    """What ``decompose`` gave, or a layer, as tensorly's ``CPTensor``, ``TuckerTensor``, ``TTTensor`` or ``TRTensor``.

    Its arrays are copies, torch tensors. It stands for the weight, ``(out, in, ..)``, with a dimension for each site of
    the layout: ``(out, in, kh, kw)``, the axes of the kernel one where they are one site, the channels several where
    they are split, each dimension over its modes in the weight's order. Only a chain of more than two sites is as it is
    joined, inputs first: ``(in, kh kw, out)``.

    >>> import tdcompress, tensorly, torch
    >>> weight = torch.linspace(-1, 1, 32 * 16 * 9).sin().reshape(32, 16, 3, 3)
    >>> found = tdcompress.to_tensorly(tdcompress.decompose(weight, "tucker", rank=8))
    >>> with tensorly.backend_context("pytorch"):
    ...     torch.allclose(found.to_tensor(), weight, atol=1e-3)
    True

    Raises ``ConfigError`` where tensorly has no such network, and for a weight that is more than its cores.
    """
    if not isinstance(held, Decomposition | Factorised):
        raise ConfigError(f"a {type(held).__name__} is no decomposition, and no layer that holds cores")
    if isinstance(held, Factorised) and not held.of_cores:
        raise ConfigError("its weight is more than a product of cores, as with padding_idx: decompose to_dense()")
    cores = list(held.cores.values()) if isinstance(held, Decomposition) else held.tensors()
    return objects.to_tensorly(held.graph, find_format(held.format), cores)


def from_tensorly(found: Any, weight: Tensor, **settings: Any) -> Decomposition:
    """What tensorly found for a dense weight, ``(out, in[, [[kd,] kh,] kw])``, as ``decompose`` would give it.

    ``found``: a ``CPTensor``, ``TuckerTensor``, ``TTTensor`` or ``TRTensor`` with the dimensions of ``to_tensorly``,
    its arrays torch's or numpy's. ``settings``: those of ``compress``, of which layout, kernel, factors and modes say
    what its dimensions are. A wrong order shows in the ``error``.

    >>> import tdcompress, tensorly, torch
    >>> from tensorly.decomposition import parafac
    >>> weight = torch.linspace(-1, 1, 32 * 16 * 9).cosh().reshape(32, 16, 3, 3)
    >>> with tensorly.backend_context("pytorch"):
    ...     found = parafac(weight, rank=2)
    >>> tdcompress.from_tensorly(found, weight).error < 1e-2
    True

    Raises ``ConfigError`` for any other object, and for one of another shape.
    """
    return decomposition(weight, objects.format_of(found).name, 1, {"cores": {"0": found}, **settings})
