"""tensorly's classes as graphs: which core each of an object's arrays is, and what the array's dimensions hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...tensor.errors import ConfigError
from ...tensor.formats import FORMATS, Format
from ...tensor.graph import Graph

Group = tuple[str, ...]
"""The indices that one dimension holds, the first of them varies slowest; of none its size is one."""


@dataclass(frozen=True)
class Array:
    """One array of an object: the position of its core in the graph, and its dimensions.

    No position: a factor of a mode that the core of the first array carries, (mode, mode), the identity.
    """

    core: int | None
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Reading:
    """How a class of tensorly has a graph: the arrays, in its order, and the dimensions of the tensor they stand for.

    A dimension is a site of the graph, or a mode that stays on the central core, its modes in the dense weight's order.
    """

    graph: Graph
    arrays: tuple[Array, ...]
    dimensions: tuple[Group, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that the arrays stand for."""
        return tuple(self.size(group) for group in self.dimensions)

    @property
    def said(self) -> str:
        """The dimensions and their sizes, for people."""
        return ", ".join(f"{' '.join(g)}: {size}" for g, size in zip(self.dimensions, self.shape, strict=True))

    def tensor(self, weight: Tensor) -> Tensor:
        """``weight``, one dimension for each mode of the graph, over the ``dimensions``."""
        order = [self.graph.modes.index(mode) for group in self.dimensions for mode in group]
        return weight.permute(order).reshape(self.shape)

    def arrays_of(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """The arrays that hold the cores of the graph."""
        found = []
        for array in self.arrays:
            if array.core is None:
                found.append(torch.eye(self.size(array.groups[0]), device=cores[0].device).to(cores[0]))
            else:
                indices = self.graph.cores[array.core].indices
                value = cores[array.core].permute([indices.index(index) for group in array.groups for index in group])
                found.append(value.reshape([self.size(group) for group in array.groups]))
        return found

    def cores_of(self, arrays: Sequence[Tensor]) -> tuple[Graph, list[Tensor]]:
        """The cores that the arrays hold, and the graph at their bond sizes.

        Raises ``ConfigError`` for arrays of a tensor of another shape, and for such as do not fit together.
        """
        if [value.dim() for value in arrays] != [len(array.groups) for array in self.arrays]:
            raise ConfigError(f"it has arrays of shape {', '.join(str(tuple(value.shape)) for value in arrays)}")
        arrays = self._with_modes_on_the_core(arrays)
        sizes = {**self.graph.sizes}
        for array, value in zip(self.arrays, arrays, strict=True):
            for group, size in zip(array.groups, value.shape, strict=True):
                if group and group[0] in self.graph.bonds:
                    sizes[group[0]] = size
        graph = self.graph.with_ranks(sizes)
        found: dict[int, Tensor] = {}
        for array, value in zip(self.arrays, arrays, strict=True):
            wanted = tuple(math.prod(sizes[index] for index in group) for group in array.groups)
            if tuple(value.shape) != wanted:
                raise ConfigError(f"an array is of shape {tuple(value.shape)}, beside the others it should be {wanted}")
            if array.core is not None:
                order = [index for group in array.groups for index in group]
                value = value.reshape([sizes[index] for index in order])
                indices = graph.cores[array.core].indices
                found[array.core] = value.permute([order.index(index) for index in indices]).contiguous()
        return graph, [found[k] for k in range(len(graph.cores))]

    def _with_modes_on_the_core(self, arrays: Sequence[Tensor]) -> list[Tensor]:
        """The arrays with factors that are no cores multiplied into the first one."""
        arrays = list(arrays)
        for place, array in enumerate(self.arrays):
            if array.core is None:
                axis = self.arrays[0].groups.index(array.groups[0])
                arrays[0] = torch.tensordot(arrays[place], arrays[0], ([1], [axis])).movedim(0, axis)
                arrays[place] = torch.eye(len(arrays[place]), device=arrays[0].device).to(arrays[0])
        return arrays

    def size(self, group: Group) -> int:
        """Of a dimension."""
        return math.prod(self.graph.sizes[index] for index in group)


def class_of(format: Format) -> str:
    """The name of tensorly's class of the format's networks. Raises ``ConfigError`` where it has none."""
    if format.tensorly is None:
        known = ", ".join(sorted(name for name, other in FORMATS.items() if other.tensorly is not None))
        raise ConfigError(f"tensorly has no {format.name}, it has {known}")
    if format.tensorly not in CLASSES:
        raise ConfigError(f"unknown class '{format.tensorly}' of tensorly, known: {', '.join(CLASSES)}")
    return format.tensorly


def reading(graph: Graph, format: Format) -> Reading:
    """How tensorly has a graph of this format. Raises ``ConfigError`` where it does not."""
    found = CLASSES[class_of(format)](graph)
    if found is None:
        cores = " ".join(f"{core.name}({','.join(core.indices)})" for core in graph.cores)
        raise ConfigError(f"{cores} is no {format.tensorly} of tensorly")
    return found


def _polyadic(graph: Graph) -> Reading | None:
    """Factors (site, r), all with the one bond that there is."""
    sites = [_site(graph, k) for k in range(len(graph.cores))]
    if len(graph.bonds) != 1 or len(graph.carriers[graph.bonds[0]]) != len(graph.cores) or not all(sites):
        return None
    order = sorted(range(len(graph.cores)), key=lambda k: _place(graph, k))
    arrays = tuple(Array(k, (_site(graph, k), graph.bonds)) for k in order)
    return Reading(graph, arrays, tuple(_site(graph, k) for k in order))


def _star(graph: Graph) -> Reading | None:
    """A core with every bond, and behind each of them a factor (site, r); modes of the core have none of their own."""
    centre = next((k for k in reversed(range(len(graph.cores))) if set(graph.bonds) <= set(graph.cores[k].indices)), -1)
    others = [k for k in range(len(graph.cores)) if k != centre]
    if centre < 0 or any(graph.leaf_bond(graph.cores[k]) is None for k in others):
        return None
    dimensions: dict[Group, tuple[Array, Group]] = {}
    for k in others:
        bond = (str(graph.leaf_bond(graph.cores[k])),)
        dimensions[_site(graph, k)] = Array(k, (_site(graph, k), bond)), bond
    for mode in _site(graph, centre):
        dimensions[(mode,)] = Array(None, ((mode,), (mode,))), (mode,)
    order = sorted(dimensions, key=lambda group: graph.modes.index(group[0]))
    core = Array(centre, tuple(dimensions[group][1] for group in order))
    return Reading(graph, (core, *(dimensions[group][0] for group in order)), tuple(order))


def _train(graph: Graph) -> Reading | None:
    """A chain of (r, site, r), the first bond and the last of size one."""
    links = _links(graph, ())
    return None if links is None else _in_order(graph, [links, _reversed(links)])


def _ring(graph: Graph) -> Reading | None:
    """A closed chain of (r, site, r)."""
    ends = [bond for bond in graph.cores[0].indices if graph.carriers[bond] == (0, len(graph.cores) - 1)]
    links = _links(graph, (ends[0],)) if ends else None
    if links is None:
        return None
    turned = [links[k:] + links[:k] for k in range(len(links))]
    return _in_order(graph, [*turned, *map(_reversed, turned)])


CLASSES: dict[str, Callable[[Graph], Reading | None]] = {
    "CPTensor": _polyadic,
    "TuckerTensor": _star,
    "TTTensor": _train,
    "TRTensor": _ring,
}
"""From a graph to how each class of tensorly has it; None where it has another topology."""

Link = tuple[int, Group, Group]
"""A core of a chain and its bonds to the one before and the one behind."""


def _links(graph: Graph, ends: Group) -> list[Link] | None:
    """The cores as a chain in their own order, whose first and last core have the bond ``ends`` if there is one."""
    count = len(graph.cores)
    between = [ends]
    for k in range(count - 1):
        shared = [bond for bond in graph.bonds if graph.carriers[bond] == (k, k + 1) and bond not in ends]
        if len(shared) != 1:
            return None
        between.append((shared[0],))
    if len(graph.bonds) != count - 1 + len(ends) or not all(_site(graph, k) for k in range(count)):
        return None
    return list(zip(range(count), between, [*between[1:], ends], strict=True))


def _reversed(links: Sequence[Link]) -> list[Link]:
    return [(k, after, before) for k, before, after in reversed(links)]


def _in_order(graph: Graph, ways: Sequence[Sequence[Link]]) -> Reading:
    """The first way to read a chain in which its sites are in the weight's order, else the first."""

    def in_order(links: Sequence[Link]) -> bool:
        places = [_place(graph, k) for k, _, _ in links]
        return places == sorted(places)

    chosen = next(filter(in_order, ways), ways[0])
    arrays = tuple(Array(k, (before, _site(graph, k), after)) for k, before, after in chosen)
    return Reading(graph, arrays, tuple(_site(graph, k) for k, _, _ in chosen))


def _site(graph: Graph, k: int) -> Group:
    """The modes of a core, in the dense weight's order."""
    return tuple(mode for mode in graph.modes if mode in graph.cores[k].indices)


def _place(graph: Graph, k: int) -> int:
    return graph.modes.index(_site(graph, k)[0])
