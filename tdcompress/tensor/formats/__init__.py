"""The registry of tensor formats: one file a format, each a function from sites to cores."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..graph import Core
from ..layout import Layout

Topology = Callable[[Layout], list[Core]]


ReferenceRank = Callable[[tuple[int, int], str, bool], int]


def widest_third(channels: tuple[int, int], bond: str, conv: bool) -> int:
    """The reference system's ranks: a third of the wider side for convolutions, half the narrower for linear layers.

    ``channels``: (in, out) of the layer; ``bond``: the index asked for; ``conv``: the layer is a convolution.
    """
    return max(1, max(channels) // 3 if conv else min(channels) // 2)


@dataclass(frozen=True)
class Format:
    """A named topology and how it is used unless the user says otherwise.

    ``layout`` and ``kernel``: its default grouping of modes (see ``network.layout.arrange``), ``linear_layout`` that of
    linear layers where it differs, ``factors`` how many factors a channel count is split into. ``open_kernel``: it has
    a central core on which kh and kw may stay. ``reference_rank``: what ``rank=reference`` means for a bond,
    ``reference_layout`` the layout of convolutions that goes with it where it differs. ``init``: its initial cores,
    those that trained best.
    ``factorised`` is false for the baseline, whose layers are left as they are.
    """

    name: str
    topology: Topology
    layout: str = "channels"
    linear_layout: str | None = None
    factors: int = 3
    kernel: str = "merged"
    open_kernel: bool = False
    reference_rank: ReferenceRank = widest_third
    reference_layout: str | None = None
    init: str = "orthogonal"
    factorised: bool = True


FORMATS: dict[str, Format] = {}


def find_format(name: str) -> Format:
    """The registered format. Raises ``ConfigError`` with the known names for any other."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}', known: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def register(name: str, **settings: Any) -> Callable[[Topology], Topology]:
    """Decorator: enter a topology into ``FORMATS``; ``settings`` are the further fields of ``Format``."""

    def enter(topology: Topology) -> Topology:
        FORMATS[name] = Format(name, topology, **settings)
        return topology

    return enter


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
