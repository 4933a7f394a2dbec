"""The weight of a plain torch module as a product of cores, in as few operations as there can be."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...layers.base import Factorised
from ...layers.values import holding
from ...tensor.contraction.path import Tree
from ...tensor.contraction.walk import positions
from ...tensor.graph import Graph

M = TypeVar("M", bound=nn.Module)


class Merged(nn.Module):
    """From the cores of ``tree`` to their product, indexed as ``order`` says, in ``shape``: an einsum for each merge.

    ``read``: how many rows and columns of it there are, where the others are padding.

    A parametrisation of torch's (``torch.nn.utils.parametrize``), whose parameters are the cores as the graph has them.
    """

    def __init__(
        self, graph: Graph, tree: Tree, order: Sequence[str], shape: Sequence[int], read: Sequence[int]
    ) -> None:
        super().__init__()
        self.members, self.shape, self.read = sorted(positions(tree)), tuple(shape), tuple(read)
        self.shapes = [graph.shape(graph.cores[position]) for position in self.members]
        self._operands = [graph.cores[position].indices for position in self.members]
        self.equations: list[tuple[tuple[int, ...], str]] = []
        self._merge(graph, tree, order)

    def forward(self, *cores: Tensor) -> Tensor:
        tensors = list(cores)
        for places, equation in self.equations:
            tensors.append(torch.einsum(equation, *(tensors[place] for place in places)))
        whole = tensors[-1].reshape(self.shape)
        return whole if self.read == self.shape[:2] else whole[: self.read[0], : self.read[1]]

    def right_inverse(self, entries: Tensor) -> list[Tensor]:
        """The cores of which ``entries`` are those of one after the other."""
        parts = entries.split([math.prod(shape) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _merge(self, graph: Graph, tree: Tree, order: Sequence[str] | None = None) -> int:
        """Note down the merges of a tree; returns the place of its result, which has the indices ``order``."""
        if isinstance(tree, int):
            places: tuple[int, ...] = (self.members.index(tree),)
        else:
            places = (self._merge(graph, tree[0]), self._merge(graph, tree[1]))
        if len(places) == 1 and order is None:
            return places[0]
        self._operands.append(tuple(order or graph.open_indices(positions(tree))))
        self.equations.append((places, _equation([self._operands[place] for place in places], self._operands[-1])))
        return len(self._operands) - 1


def _equation(operands: Sequence[Sequence[str]], result: Sequence[str]) -> str:
    """The contraction as einsum takes it, a letter for each index."""
    letters = dict(zip(dict.fromkeys(chain.from_iterable(operands)), string.ascii_letters, strict=False))
    *left, right = ("".join(letters[index] for index in indices) for indices in (*operands, result))
    return f"{','.join(left)}->{right}"


def merging(module: M, merged: Merged, cores: Sequence[Tensor], bias: Tensor | None, keep: bool) -> M:
    """``module``, in place, whose weight is merged of these cores: now, or to ``keep`` them, whenever it is read."""
    if not keep or len(merged.members) == 1:
        holding(module, merged(*cores), bias).weight.requires_grad_(_learns(cores))
        return module
    return weighing(holding(module, cores[0], bias), "weight", merged, cores, keep)


def weighing(module: M, name: str, merged: Merged, cores: Sequence[Tensor], keep: bool) -> M:
    """The same for the weight of this ``name`` alone."""
    if not keep or len(merged.members) == 1:
        weight = merged(*cores).detach().clone(memory_format=torch.contiguous_format)
        setattr(module, name, nn.Parameter(weight, _learns(cores)))
        return module
    setattr(module, name, nn.Parameter(torch.cat([core.detach().flatten() for core in cores])))
    parametrize.register_parametrization(module, name, merged, unsafe=True)  # the product has another shape
    for parameter, core in zip(_cores(module, name).values(), cores, strict=True):
        parameter.requires_grad_(core.requires_grad)
    return module


def _learns(cores: Sequence[Tensor]) -> bool:
    """Whether what is merged of these cores is to be trained."""
    return any(core.requires_grad for core in cores)


def share(held: Mapping[Factorised, tuple[nn.Module, str]]) -> None:
    """Let modules whose weights are of the same cores share them, and biases that were one be one.

    ``held``: the module that has the weight of each layer, and its name there.
    """
    biases: dict[int, Any] = {}
    for layer, (module, name) in held.items():
        owner, own = held[next(one for one in held if one is layer or one in layer.tied)]
        if owner is not module or own != name:
            if parametrize.is_parametrized(module, name):
                _cores(module, name).update(_cores(owner, own))
            else:
                setattr(module, name, getattr(owner, own))
        if layer.bias is not None and module._parameters.get("bias") is not None:
            module.bias = biases.setdefault(id(layer.bias), module.bias)


def _cores(module: nn.Module, name: str) -> dict[str, Any]:
    """The parameters that a weight is computed from."""
    return module.get_submodule(f"parametrizations.{name}")._parameters
