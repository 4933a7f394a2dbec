"""The graph of a format for a weight, at the ranks that are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .caps import capped
from .contraction.roles import MODES as SPACE
from .errors import ConfigError
from .fitting.vbmf import vbmf_rank
from .formats import FORMATS, Format
from .graph import Core, Graph, validate
from .layout import KERNEL_MODES, KERNELS, LAYOUTS, arrange, factorisations
from .rank import Energy, LayerRank, Reference, Size, Sizes, Vbmf
from .spectrum import Rule, energy, unfolding_ranks

_TAKEN = frozenset(dir(nn.ParameterDict()))
"""What no core can be called: the dictionary that layers keep theirs in has it already."""


def build(
    weight_shape: Sequence[int],
    format: Format,
    layout: str | None = None,
    kernel: str | None = None,
    factors: int | None = None,
    in_modes: Sequence[int] | None = None,
    out_modes: Sequence[int] | None = None,
) -> Graph:
    """The graph of ``format`` for a dense weight of torch's shape, every bond at size one.

    The other arguments are those of ``layout.arrange``; None: as the format usually has it. Raises ``ConfigError`` for
    what cannot be combined.
    """
    kernel = kernel or format.kernel
    if kernel not in KERNELS:
        raise ConfigError(f"unknown kernel '{kernel}', known: {', '.join(KERNELS)}")
    if kernel == "open" and not format.open_kernel and len(weight_shape) > 2:
        able = ", ".join(sorted(f.name for f in FORMATS.values() if f.open_kernel))
        raise ConfigError(f"kernel=open needs a format with a central core ({able}), {format.name} has none")
    factors = format.factors if factors is None else factors
    layout = layout or format.usual(weight_shape)
    if layout in LAYOUTS and layout not in format.layouts:
        raise ConfigError(f"{format.name} has no layout={layout}, use {', '.join(format.layouts)}")
    arranged = arrange(weight_shape, layout, kernel, factors, in_modes, out_modes)
    if format.factorised and len(arranged.sites) < 2:
        raise ConfigError(f"layout gives a single site, {format.name} needs two: raise factors")
    cores = tuple(format.topology(arranged))
    _refuse_names(format, cores, arranged.modes)
    try:
        validate(cores, arranged.modes, KERNEL_MODES)
    except ValueError as error:
        raise ConfigError(f"format {format.name}: {error}") from None
    bonds = {index for core in cores for index in core.indices} - set(arranged.modes)
    sizes = {**arranged.sizes, **dict.fromkeys(bonds, 1)}
    return Graph(cores, arranged.modes, sizes, arranged.input_modes, arranged.output_modes, tuple(weight_shape))


def _refuse_names(format: Format, cores: Sequence[Core], modes: Sequence[str]) -> None:
    """Raise ``ConfigError`` for names of cores that no parameter can have, and of bonds that others have.

    The latter are those of the batch, of pixels and of a kernel's modes, of which a weight need not have all.
    """
    others = {"b", *SPACE, *KERNEL_MODES}.difference(modes)
    for core in cores:
        if not core.name.isidentifier() or core.name in _TAKEN:
            raise ConfigError(f"format {format.name}: no core can be called '{core.name}'")
        if odd := others.intersection(core.indices):
            raise ConfigError(f"format {format.name}: no bond can be called '{min(odd)}'")


def family(weight_shape: Sequence[int], format: Format, **settings: Any) -> tuple[Graph, ...]:
    """The graphs that ``build`` gives with these ``settings`` of its own: more than one where factors are open.

    They are where the format leaves them to a budget, and neither ``in_modes`` nor ``out_modes`` says what they are. Of
    those that differ in modes alone which are always together, one.
    """
    factors = settings.get("factors") or format.factors
    given = settings.get("in_modes") or settings.get("out_modes")
    if not format.factors_by_budget or given:
        return (build(weight_shape, format, **settings),)
    first = build(weight_shape, format, **settings)
    outs, ins = (list(factorisations(channels, factors)) for channels in weight_shape[:2])
    found: dict[tuple[int, ...], dict[str, Sequence[int]]] = {}
    for own, others in itertools.product(ins, outs):
        sizes = dict(zip((*first.inputs, *first.outputs), (*own, *others), strict=True))
        alike: dict[tuple[Any, ...], int] = {}  # modes of one side on the same cores are as one of all their values
        for mode, size in sizes.items():
            side = mode in first.inputs, first.carriers[mode]
            alike[side] = alike.get(side, 1) * size
        found.setdefault(tuple(alike.values()), {"in_modes": own, "out_modes": others})
    return tuple(build(weight_shape, format, **{**settings, **some}) for some in found.values())


def with_rank(
    graph: Graph, format: Format, rank: LayerRank, weight_shape: Sequence[int], weight: torch.Tensor | None = None
) -> Graph:
    """The graph at the asked rank, capped; ``weight``: the dense one, for a rank that follows from it.

    Raises ``ConfigError`` for another number of sizes than there are bonds, and without a weight that is needed.
    """
    rule: Rule
    match rank:
        case Size(size):
            return capped(graph, dict.fromkeys(graph.bonds, size))
        case Sizes(sizes):
            if len(sizes) != len(graph.bonds):
                raise ConfigError(
                    f"rank={list(sizes)} has {len(sizes)} sizes, but there are {len(graph.bonds)} bonds; "
                    "method.layers={NAME:{rank:[..]}} gives one layer's"
                )
            return capped(graph, dict(zip(graph.bonds, sizes, strict=True)))
        case Reference():
            channels, conv = (weight_shape[1], weight_shape[0]), len(weight_shape) > 2
            return capped(graph, {bond: format.reference_rank(channels, bond, conv) for bond in graph.bonds})
        case Vbmf():
            rule = _largest_vbmf_rank
        case Energy(share):
            rule = energy(share)
    if weight is None:
        raise ConfigError(f"rank={rank} follows from a weight, and there is none")
    return unfolding_ranks(graph, weight, rule)


def _largest_vbmf_rank(values: torch.Tensor, rows: int, columns: int) -> int:
    return max(vbmf_rank(of_one, rows, columns) for of_one in values)
