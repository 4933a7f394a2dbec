"""The registry of tensor formats: one file a format, each a function from sites to cores."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..graph import Core
from ..layout import LAYOUTS, Layout

Topology = Callable[[Layout], list[Core]]
"""From the sites of a weight to its cores: their names and the indices that each carries."""

ReferenceRank = Callable[[tuple[int, int], str, bool], int]
"""From a layer's channels (in, out), a bond's name and whether it is a convolution, to the bond's reference rank."""


def widest_third(channels: tuple[int, int], bond: str, conv: bool) -> int:
    """The reference system's ranks: a third of the wider side for convolutions, half the narrower for linear layers.

    ``channels``: (in, out) of the layer; ``bond``: the index asked for; ``conv``: the layer is a convolution.
    """
    return max(1, max(channels) // 3 if conv else min(channels) // 2)


@dataclass(frozen=True)
class Format:
    """A named topology and how it is used unless the user says otherwise.

    ``layout`` and ``kernel``: how it groups modes into sites, see ``layout.arrange``; ``linear_layout``: the layout of
    linear layers where it differs; ``layouts``: all that it has; ``factors``: how many factors a channel count is split
    into; ``factors_by_budget``: which these are is part of a budget's search. ``open_kernel``: it has a central core on
    which kh and kw may stay. ``reference_rank``: a bond's size at ``rank=reference``, and ``reference_layout`` the
    layout of convolutions that goes with it where it differs. ``init``: the initial cores, the kind that trained best.
    ``factorised``: false for the baseline alone, whose layers are left as they are. ``default``: true for the format
    that is meant where none is named. ``tensorly``: the name of tensorly's class of such networks, where it has one.
    """

    name: str
    topology: Topology
    layout: str = "channels"
    linear_layout: str | None = None
    layouts: tuple[str, ...] = LAYOUTS
    factors: int = 3
    factors_by_budget: bool = False
    kernel: str = "merged"
    open_kernel: bool = False
    reference_rank: ReferenceRank = widest_third
    reference_layout: str | None = None
    init: str = "orthogonal"
    factorised: bool = True
    default: bool = False
    tensorly: str | None = None

    def usual(self, weight_shape: Sequence[int]) -> str:
        """The layout of a dense weight of this shape, torch's, where none is asked for."""
        return self.layout if len(weight_shape) > 2 else self.linear_layout or self.layout


FORMATS: dict[str, Format] = {}
"""Every registered format by its name."""


def find_format(name: str) -> Format:
    """The registered format. Raises ``ConfigError`` with the known names for any other."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}', known: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def register(name: str, **settings: Any) -> Callable[[Topology], Topology]:
    """Decorator that enters a topology into ``FORMATS`` as the format ``name``, and returns the topology.

    ``settings``: further fields of ``Format``. Raises ``ConfigError`` where another format has that name.
    """

    def enter(topology: Topology) -> Topology:
        if name in FORMATS:
            raise ConfigError(f"there is a format '{name}' already, from {FORMATS[name].topology.__module__}")
        FORMATS[name] = Format(name, topology, **settings)
        return topology

    return enter


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

BASELINE = next(name for name, format in FORMATS.items() if not format.factorised)
"""The format that leaves every layer as it is, with which the others are compared."""

DEFAULT = next(name for name, format in FORMATS.items() if format.default)
"""The format that is meant where none is named."""
