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

    ``modes`` are the indices of the weight, in the order in which the dense weight holds them; every other index is a
    bond: shared by two cores, or by more (a hyperedge, as in CP). A mode that several cores carry is no sum: it numbers
    blocks of W, each a network of the slices there (block tensor trains). ``inputs`` and ``outputs`` are those modes
    over which the weight is applied to an activation, in the order in which its channels and those of the result are
    split; a graph that is only reconstructed or measured needs none.

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

    @cached_property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """For each bond the modes that all cores with it carry: for each of their values it is a bond of its own."""
        shared = [(mode, set(self.carriers[mode])) for mode in self.modes if len(self.carriers[mode]) > 1]
        return {bond: tuple(mode for mode, on in shared if on.issuperset(self.carriers[bond])) for bond in self.bonds}

    def beyond(self, positions: Collection[int]) -> frozenset[str]:
        """The indices that any core but those at ``positions`` carries: what is still needed after these."""
        inside = set(positions)
        return frozenset(index for index, carriers in self.carriers.items() if not inside.issuperset(carriers))

    def open_indices(self, positions: Collection[int]) -> tuple[str, ...]:
        """What the product of the cores at ``positions`` carries: their modes, and the bonds to cores beyond them.

        In order of appearance.
        """
        found = dict.fromkeys(index for position in sorted(positions) for index in self.cores[position].indices)
        beyond = self.beyond(positions)
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
        modes = [index for index in leaf.indices if index != bond and index not in self.blocks[bond]]
        cores = tuple(
            Core(core.name, tuple(new for index in core.indices for new in (modes if index == bond else [index])))
            for core in self.cores
            if core != leaf
        )
        return replace(self, cores=cores, sizes={index: size for index, size in self.sizes.items() if index != bond})

    def branches(self, bond: str | None = None) -> list[frozenset[int]]:
        """The connected parts of the graph as sets of core positions; with ``bond`` those left when it is cut.

        A cut is one of every block: then modes hold nothing together.
        """
        cut = {bond} if bond is None else {bond, *self.modes}
        left = set(range(len(self.cores)))
        parts = []
        while left:
            part, border = set(), {left.pop()}
            while border:
                position = border.pop()
                part.add(position)
                for index in self.cores[position].indices:
                    if index not in cut:
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
        """Product of the sizes of all modes on the given cores."""
        carried = {index for position in positions for index in self.cores[position].indices}
        return math.prod(self.sizes[index] for index in carried if index in self.modes)


def validate(cores: Sequence[Core], modes: Sequence[str], single: Collection[str] = ()) -> None:
    """Raise ``ValueError`` unless every mode sits on a core, of the ``single`` ones on one, every bond on two or more.

    Cores that share a mode must be connected by bonds through cores that carry it, too: otherwise the block that a bond
    belongs to would be known at neither of its ends.
    """
    names = [core.name for core in cores]
    if len(set(names)) != len(names):
        raise ValueError(f"core names repeat: {names}")
    carriers = Graph(tuple(cores), tuple(modes), {}).carriers
    for mode in modes:
        if mode not in carriers:
            raise ValueError(f"mode {mode} sits on no core")
        if mode in single and len(carriers[mode]) > 1:
            raise ValueError(f"mode {mode} sits on several cores, which only modes of channels can")
        holders = Graph(tuple(cores[position] for position in carriers[mode]), tuple(modes), {})
        if len(holders.branches("")) > 1:
            raise ValueError(f"mode {mode} sits on cores that no bonds connect through others that carry it")
    lonely = [index for index, positions in carriers.items() if index not in modes and len(positions) < 2]
    if lonely:
        raise ValueError(f"bonds on a single core: {lonely}")
    if len(parts := Graph(tuple(cores), tuple(modes), {}).branches("")) > 1:
        raise ValueError(f"no bonds connect {' with '.join(cores[min(part)].name for part in parts)}")
