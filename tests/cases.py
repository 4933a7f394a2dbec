"""Every format x layout x kernel x layer kind, and the oracle that shares no code with the product."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tdcompress.compression.spec import build_graph
from tdcompress.compression.swap import compress
from tdcompress.config.schema import MethodConfig
from tdcompress.layers.base import Factorised
from tdcompress.tensor.build import with_rank
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Graph
from tdcompress.tensor.layout import KERNELS
from tdcompress.tensor.rank import RankLike, parse

IN, OUT, TAPS = 8, 12, (3, 2)  # split in two: 2*4 and 3*4; no two sizes alike, so that a swap of modes shows
IMAGE = (7, 6)
FACTORISED = sorted(name for name, format in FORMATS.items() if format.factorised)
WAYS = [(name, layout) for name in FACTORISED for layout in FORMATS[name].layouts]
aten = torch.ops.aten
SHAPES = {"conv": (OUT, IN, *TAPS), "linear": (OUT, IN)}


@dataclass(frozen=True)
class Case:
    """One way to hold a weight."""

    format: str
    layout: str
    kernel: str
    kind: str

    def __str__(self) -> str:
        return f"{self.format}-{self.layout}-{self.kernel}-{self.kind}"

    @property
    def settings(self) -> dict[str, object]:
        """The keywords of ``compress``."""
        return {"layout": self.layout, "kernel": self.kernel, "factors": 2, "allow_larger": True}

    def graph(self, rank: RankLike = 3, shape: Sequence[int] | None = None, **settings: object) -> Graph:
        """The graph of a weight of the kind's shape."""
        method, shape = MethodConfig(format=self.format, **{**self.settings, **settings}), shape or SHAPES[self.kind]
        return with_rank(build_graph(shape, FORMATS[self.format], method), FORMATS[self.format], parse(rank), shape)

    def twin(self, **settings: object) -> nn.Module:
        """The dense layer."""
        return nn.Conv2d(IN, OUT, TAPS, **settings) if self.kind == "conv" else nn.Linear(IN, OUT, **settings)

    def layer(self, rank: int = 3, plan: str = "chain", twin: nn.Module | None = None) -> Factorised:
        """The compressed layer, in double precision."""
        model = nn.Sequential(twin or self.twin())
        shape = (model[0].in_channels, *IMAGE) if self.kind == "conv" else (model[0].in_features,)
        return compress(model, self.format, rank, shape, keep=[], plan=plan, **self.settings)[0].double()


def having(*layouts: str) -> list[tuple[str, str]]:
    """Each format with each of these layouts that it has."""
    return [(format, layout) for format, layout in WAYS if layout in layouts]


def layout_of(format: str, wanted: str) -> str:
    """The layout that is wanted, or the usual one of a format that has no such."""
    return wanted if wanted in FORMATS[format].layouts else FORMATS[format].layout


def _kernels(format: str, layout: str, kind: str) -> Sequence[str]:
    if kind == "linear" or layout == "matrix":  # no kernel, or always with the input channels
        return ("merged",)
    return KERNELS if FORMATS[format].open_kernel else ("merged", "separate")


ALL = [
    Case(format, layout, kernel, kind)
    for format in sorted(FORMATS)
    for layout in FORMATS[format].layouts
    for kind in SHAPES
    for kernel in _kernels(format, layout, kind)
]
CASES = [case for case in ALL if FORMATS[case.format].factorised]


def einsum_dense(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """The weight as one einsum over all cores, a letter per index: the definition of a tensor network."""
    indices = dict.fromkeys(index for core in graph.cores for index in core.indices)
    letters = {index: string.ascii_letters[k] for k, index in enumerate(indices)}
    terms = ["".join(letters[i] for i in core.indices) for core in graph.cores]
    return torch.einsum(",".join(terms) + "->" + "".join(letters[m] for m in graph.modes), *cores)


def einsum_weight(layer: Factorised) -> Tensor:
    """The dense weight of a layer by ``einsum_dense``: the first channels of what its modes hold, row by row."""
    whole, shape = einsum_dense(layer.graph, layer.tensors()), layer.weight_shape
    axes = [mode[0] for mode in layer.graph.modes]
    outputs, inputs = whole.shape[: axes.count("o")], whole.shape[axes.count("o") :][: axes.count("i")]
    return whole.reshape(outputs.numel(), inputs.numel(), *shape[2:])[: shape[0], : shape[1]]


def random_cores(graph: Graph, seed: int = 0) -> list[Tensor]:
    """Double precision cores of a graph, ready for gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [graph.shape(core) for core in graph.cores]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


class Largest(TorchDispatchMode):
    """While it is entered, notes the entries of the largest tensor that any operation puts out."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.entries = max(self.entries, value.numel())
        return out


class Made(TorchDispatchMode):
    """While it is entered, notes the multiply-accumulates of each kind of call, named as ``Rates`` names them.

    Elementwise and outer products count as products with a matrix do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        kind, summed = None, 1
        if func is aten.convolution.default:
            weight, groups, transposed = args[1], args[8], args[6]
            summed = weight[:, 0].numel() // groups if transposed else weight[0].numel()
            kind = "convolution" if weight[0, 0].numel() > 1 else "pointwise"
            if groups > 1:
                depthwise = "depthwise_3d" if weight.dim() == 5 else "depthwise"
                kind = depthwise if weight.shape[:2] == (groups, 1) else "grouped"
        elif func is aten.bmm.default:
            summed = args[0].shape[-1]
            kind = "batched" if len(out) > 1 < summed else "product"
        elif func in (aten.mm.default, aten.addmm.default):
            kind, summed = "product", args[-1].shape[0]
        elif func is aten.mul.Tensor:
            kind = "product"
        if kind is not None:
            self.macs[kind] = self.macs.get(kind, 0) + out.numel() * summed
        return out


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-10, absolute and relative."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
