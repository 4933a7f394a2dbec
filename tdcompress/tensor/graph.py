"""A tensor format as a graph: cores that carry named indices, open modes and bonds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

Site = tuple[str, ...]
"""The modes that sit on one core, e.g. ``("kh", "kw")`` or ``("i1", "o1")``."""


@dataclass(frozen=True)
class Core:
    """One tensor of a format: its name and the indices it carries, in storage order."""

    name: str
    indices: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Cores and the size of every index.

    ``modes`` are the indices of the weight (each on exactly one core), in the order in which the dense weight
    holds them; every other index is a bond: shared by two cores, or by more (a hyperedge, as in CP). ``inputs`` and
    ``outputs`` are those modes over which the weight is applied to an activation, in the order in which its channels
    and those of the result are split; a graph that is only reconstructed or measured needs none.

    ``weight_shape``: that of the dense weight, ``(out, in, [kh,] kw)``, where there is one. The modes of its channels
    may hold more than these: the weight is then padded, at the end of its channels, and what lies beyond is never read.
    """

    cores: tuple[Core, ...]
    modes: tuple[str, ...]
    sizes: Mapping[str, int] = field(hash=False)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    weight_shape: tuple[int, ...] = ()

    @cached_property
    def carriers(self) -> dict[str, tuple[int, ...]]:
        """Which cores (positions) carry each index."""
        found: dict[str, list[int]] = {}
        for position, core in enumerate(self.cores):
            for index in core.indices:
                found.setdefault(index, []).append(position)
        return {index: tuple(positions) for index, positions in found.items()}

    @cached_property
    def bonds(self) -> tuple[str, ...]:
        """The internal indices, in order of appearance."""
        return tuple(index for index in self.carriers if index not in self.modes)

    def bonds_beyond(self, positions: Collection[int]) -> frozenset[str]:
        """The bonds that any core but those at ``positions`` carries: what is left to sum over after these."""
        inside = set(positions)
        return frozenset(bond for bond in self.bonds if not inside.issuperset(self.carriers[bond]))

    def open_indices(self, positions: Collection[int]) -> tuple[str, ...]:
        """What the product of the cores at ``positions`` carries: their modes, and the bonds to cores beyond them.

        In order of appearance.
        """
        found = dict.fromkeys(index for position in sorted(positions) for index in self.cores[position].indices)
        beyond = self.bonds_beyond(positions)
        return tuple(index for index in found if index in beyond or index in self.modes)

    @property
    def ranks(self) -> dict[str, int]:
        """The size of every bond."""
        return {bond: self.sizes[bond] for bond in self.bonds}

    def shape(self, core: Core) -> tuple[int, ...]:
        """The core's sizes, in storage order."""
        return tuple(self.sizes[index] for index in core.indices)

    @property
    def parameters(self) -> int:
        """Entries of all cores."""
        return sum(math.prod(self.shape(core)) for core in self.cores)

    @property
    def entries(self) -> int:
        """What the modes hold, padding included."""
        return math.prod(self.sizes[mode] for mode in self.modes)

    @property
    def dense_parameters(self) -> int:
        """Entries of the dense weight."""
        return math.prod(self.weight_shape) if self.weight_shape else self.entries

    @property
    def channels(self) -> tuple[tuple[tuple[str, ...], int], ...]:
        """The modes of the outputs and how many channels these are, and those of the inputs, in the weight's order."""
        return tuple(zip((self.outputs, self.inputs), self.weight_shape, strict=False))

    @property
    def padding(self) -> tuple[int, int]:
        """How many channels the modes hold beyond those of the weight, outputs and inputs."""
        beyond = [math.prod(self.sizes[mode] for mode in modes) - count for modes, count in self.channels]
        return (beyond[0], beyond[1]) if beyond else (0, 0)

    @property
    def whole(self) -> Graph:
        """The graph of all that the modes hold, to which padding is as good as anything else."""
        return replace(self, weight_shape=())

    def with_ranks(self, ranks: Mapping[str, int]) -> Graph:
        """The same graph with other bond sizes."""
        return replace(self, sizes={**self.sizes, **ranks})

    def leaf_bond(self, core: Core) -> str | None:
        """The bond of a core that has no other and has it with a single other core; None for any other core."""
        bonds = [index for index in core.indices if index not in self.modes]
        return bonds[0] if len(bonds) == 1 and len(self.carriers[bonds[0]]) == 2 else None

    def merged(self, leaf: Core) -> Graph:
        """The graph without a core that has a ``leaf_bond``: the core at its other end carries its modes instead."""
        bond = self.leaf_bond(leaf)
        assert bond is not None
        modes = [index for index in leaf.indices if index != bond]
        cores = tuple(
            Core(core.name, tuple(new for index in core.indices for new in (modes if index == bond else [index])))
            for core in self.cores
            if core != leaf
        )
        return replace(self, cores=cores, sizes={index: size for index, size in self.sizes.items() if index != bond})

    def branches(self, bond: str | None = None) -> list[frozenset[int]]:
        """The connected parts of the graph as sets of core positions; with ``bond`` those left when it is cut."""
        left = set(range(len(self.cores)))
        parts = []
        while left:
            part, border = set(), {left.pop()}
            while border:
                position = border.pop()
                part.add(position)
                for index in self.cores[position].indices:
                    if index != bond:
                        border |= set(self.carriers[index]) - part
            left -= part
            parts.append(frozenset(part))
        return parts

    @property
    def is_tree(self) -> bool:
        """Whether no way leads from a core back to itself; bonds between the same two cores count as one."""
        edges = {self.carriers[bond] for bond in self.bonds}
        return all(len(edge) == 2 for edge in edges) and len(edges) == len(self.cores) - len(self.branches())

    def mode_size(self, positions: Iterable[int]) -> int:
        """Product of the mode sizes on the given cores."""
        carried = (index for position in positions for index in self.cores[position].indices)
        return math.prod(self.sizes[index] for index in carried if index in self.modes)


def validate(cores: Sequence[Core], modes: Sequence[str]) -> None:
    """Raise ``ValueError`` unless every mode sits on exactly one core and every bond on two or more."""
    names = [core.name for core in cores]
    if len(set(names)) != len(names):
        raise ValueError(f"core names repeat: {names}")
    count: dict[str, int] = {}
    for core in cores:
        for index in core.indices:
            count[index] = count.get(index, 0) + 1
    for mode in modes:
        if count.get(mode) != 1:
            raise ValueError(f"mode {mode} must sit on exactly one core, found {count.get(mode, 0)}")
    lonely = [index for index, times in count.items() if index not in modes and times < 2]
    if lonely:
        raise ValueError(f"bonds on a single core: {lonely}")
