"""A weight as a network of small tensors, in any format: a library that needs torch alone.

A format (``FORMATS``, ``register``) says which cores there are over the sites of a ``Layout``. The ``Graph`` of a
weight (``graph_of``, ``capped``) names each core's indices and their sizes; the cores themselves are a list of torch
tensors in the graph's order. Everything else works for any graph.

>>> import torch
>>> from tdcompress import tensor
>>> weight = torch.linspace(-1, 1, 12 * 8).sin().reshape(12, 8)  # (out, in); a convolution's is (out, in, kh, kw)
>>> graph = tensor.graph_of(weight.shape, tensor.find_format("tt"), layout="split", factors=2)
>>> graph = tensor.capped(graph, dict.fromkeys(graph.bonds, 3))
>>> [(core.indices, graph.shape(core)) for core in graph.cores]
[(('i1', 'r1'), (2, 2)), (('r1', 'i2', 'r2'), (2, 4, 3)), (('r2', 'o1', 'r3'), (3, 3, 3)), (('r3', 'o2'), (3, 4))]
>>> cores = tensor.decompose(graph, weight)
>>> tensor.relative_error(graph, cores, weight) < 1e-3
True
>>> torch.allclose(tensor.to_dense(graph, cores), weight, atol=1e-3)
True
>>> torch.allclose(tensor.squared_norm(graph, cores), weight.square().sum(), rtol=1e-3)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "ConfigError": ("errors", "ConfigError"),
    "Core": ("graph", "Core"),
    "FORMATS": ("formats", "FORMATS"),
    "Format": ("formats", "Format"),
    "Graph": ("graph", "Graph"),
    "Layout": ("layout", "Layout"),
    "arrange": ("layout", "arrange"),
    "capped": ("caps", "capped"),
    "caps_of": ("caps", "caps"),
    "component_energies": ("rounding", "energies"),
    "decompose": ("fitting.decompose", "decompose"),
    "find_format": ("formats", "find_format"),
    "graph_of": ("build", "build"),
    "orthogonal": ("fitting.initial", "orthogonal"),
    "register": ("formats", "register"),
    "relative_error": ("fitting.decompose", "relative_error"),
    "squared_norm": ("norm", "squared_norm"),
    "to_dense": ("weight", "to_dense"),
    "truncated": ("rounding", "truncated"),
    "variance_law": ("fitting.initial", "variance_law"),
    "with_rank": ("build", "with_rank"),
}
__all__ = [
    "FORMATS",
    "ConfigError",
    "Core",
    "Format",
    "Graph",
    "Layout",
    "arrange",
    "capped",
    "caps_of",
    "component_energies",
    "decompose",
    "find_format",
    "graph_of",
    "orthogonal",
    "register",
    "relative_error",
    "squared_norm",
    "to_dense",
    "truncated",
    "variance_law",
    "with_rank",
]

if TYPE_CHECKING:
    from .build import build as graph_of
    from .build import with_rank
    from .caps import capped
    from .caps import caps as caps_of
    from .errors import ConfigError
    from .fitting.decompose import decompose, relative_error
    from .fitting.initial import orthogonal, variance_law
    from .formats import FORMATS, Format, find_format, register
    from .graph import Core, Graph
    from .layout import Layout, arrange
    from .norm import squared_norm
    from .rounding import energies as component_energies
    from .rounding import truncated
    from .weight import to_dense


def __getattr__(name: str) -> Any:
    """Import a public name's module, and with it torch where it needs it, only when the name is asked for."""
    if name in _WHERE:
        module, attribute = _WHERE[name]
        return getattr(importlib.import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
