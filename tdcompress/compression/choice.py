"""Which layers of a model are held as cores, at which ranks, and why the others are not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from numbers import Integral
from typing import Any

from torch import nn

from ..config.schema import MethodConfig, layer_ranks
from ..layers.kinds import kind_of, why_not
from ..layers.parted.attention import separate
from ..tensor.contraction.cost import Rates
from ..tensor.errors import ConfigError
from ..tensor.formats import find_format
from ..tensor.rank import Budget, LayerRank, Rank, RankLike, parse
from ..tensor.weight import checked, refuse_type
from .left import aliases, left_dense, of_parts, ties
from .ranks.sizing import heavy, meet, rooms
from .spec import Swap, swap_for
from .survey.counts import why_dense
from .survey.inputs import Examples
from .survey.trace import Trace, trace

_NO_SMALLER = "its cores would hold no fewer entries"
_PLANNING_BATCH = 100  # images the plan is made for, where none are named


@dataclass(frozen=True)
class Request:
    """What ``compress`` is asked for; its arguments of the same names, but that nothing is left to follow from others.

    ``rates``: None for those of each layer's device.
    """

    method: MethodConfig
    rank: Rank
    examples: Examples
    keep: Sequence[str] | None
    batch_size: int
    rates: Rates | None
    cores: Mapping[str, Any] | None

    @staticmethod
    def of(
        method: MethodConfig,
        rank: RankLike,
        examples: Examples,
        keep: str | Sequence[str] | None,
        batch_size: int | None,
        rates: Rates | None,
        cores: Mapping[str, Any] | None = None,
    ) -> Request:
        """The same of arguments as ``compress`` takes them. Raises ``ConfigError`` for a rank that is none."""
        asked = parse(rank)
        if batch_size is None:
            batch_size = _PLANNING_BATCH if examples.batch == 1 else 1
        elif not isinstance(batch_size, Integral) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r} is no number of inputs")
        batch_size = int(batch_size)
        if not isinstance(rates, Rates | None):
            raise ConfigError(f"rates={rates!r} are no Rates of a device")
        given = isinstance(cores, Mapping) and bool(cores) and all(one is not None for one in cores.values())
        if cores is not None and not given:
            raise ConfigError(f"cores: for each layer that is to hold some what these are, by its name, got {cores!r}")
        if isinstance(asked, Budget) and asked.kind == "macs":
            rates = Rates()  # ranks, and the plans that they were counted along, are the same on every machine
        several = isinstance(keep, Iterable) and not isinstance(keep, str)
        patterns: Any = None if keep is None else list(keep) if several else [keep]
        if odd := [pattern for pattern in patterns or () if not isinstance(pattern, str)]:
            raise ConfigError(f"keep: names of layers, or patterns of them, are strings, not {odd[0]!r}")
        return Request(method, asked, examples, patterns, batch_size, rates, cores)

    def names(self, layer: str) -> bool:
        """Whether a layer may be swapped: where cores are given, only those that have some are."""
        return self.cores is None or layer in self.cores


@dataclass(frozen=True)
class Choice:
    """What becomes of a model's layers.

    ``swaps``: of those that are swapped, each with its ranks; ``uses``: of each of these the names of all layers that
    have its weight, its own first; ``left``: why others stay dense; ``seen``: what the model was seen to do before.
    """

    swaps: list[Swap]
    uses: dict[str, list[str]]
    left: dict[str, str]
    seen: Trace


def choose(model: nn.Module, request: Request) -> Choice:
    """What becomes of the layers of a model whose layers have one weight each.

    The inputs of attention whose queries are not keys are projected by three weights afterwards. Raises ``ConfigError``
    as ``compress`` does.
    """
    method, cores = request.method, request.cores
    formats = [find_format(chosen) for chosen in (method.format, method.conv, method.linear) if chosen is not None]
    factorises = cores is None and any(format.factorised for format in formats)
    seen = _traced(model, request)
    names = list(seen.inputs)
    known = aliases(model, names)
    request = _by_layers(request, model, known)
    own = layer_ranks(request.method)
    _refuse_unknown(request, known, names, list(seen.missed))
    left = _left(request, model, seen)
    tied = ties([name for name in names if name not in left and request.names(name)], model)
    if cores is None:
        _refuse_dense(request.method.layers, names, left, tied)
    swaps = _swaps(request, own, model, seen, left, tied)
    if isinstance(request.rank, Budget) and cores is None and (swaps or factorises):
        meet(request.rank, model, swaps, seen, left, request.batch_size, method.rank_multiple)
    uses = {swap.name: [name for name, first in tied.items() if first == swap.name] for swap in swaps}
    for swap in swaps:
        if swap.stays_dense(swap.graph):
            left |= dict.fromkeys(uses.pop(swap.name), _NO_SMALLER)
    swaps = [swap for swap in swaps if swap.name in uses]
    if not swaps and factorises:
        raise ConfigError(f"no layer would be held as cores ({_reasons(model, seen, left)})")
    return Choice(swaps, uses, left, seen)


def _traced(model: nn.Module, request: Request) -> Trace:
    examples, keep = request.examples, request.keep or ()
    for name, layer in model.named_modules():
        kind = kind_of(layer)
        if kind is not None and not any(fnmatch(name, pattern) for pattern in keep):
            with naming(name):
                refuse_type(kind.weight(layer))
    seen = trace(model, examples)
    if separate(model, {name: sum(inputs.values()) for name, inputs in seen.inputs.items()}):
        seen = trace(model, examples)
    return seen


def _by_layers(request: Request, model: nn.Module, known: Collection[str]) -> Request:
    """The same, its name patterns those of layers that have one weight, whose names are ``known``."""
    method, keep = request.method, request.keep
    keep = None if keep is None else [new for pattern in keep for new in of_parts(model, known, pattern)]
    layers = {new: value for pattern, value in method.layers.items() for new in of_parts(model, known, pattern)}
    return replace(request, method=replace(method, layers=layers), keep=keep)


def _refuse_unknown(request: Request, known: Collection[str], names: Sequence[str], missed: Sequence[str]) -> None:
    """Raise ``ConfigError`` for patterns that no layer's name matches, and for settings of layers that are ``missed``
    by the inputs, which stay dense."""
    for key, asked in (("keep", request.keep), ("layers", request.method.layers), ("cores", request.cores)):
        lost = [pattern for pattern in asked or () if not any(fnmatch(name, pattern) for name in known)]
        there = [pattern for pattern in lost if any(fnmatch(name, pattern) for name in missed)]
        if lost != there:
            others = ", ".join(pattern for pattern in lost if pattern not in there)
            raise ConfigError(f"{key}: no layer is named {others}; there are {', '.join((*names, *missed))}")
        if there and key != "keep":
            raise ConfigError(f"{key}: the inputs do not reach {', '.join(there)}")


def _left(request: Request, model: nn.Module, seen: Trace) -> dict[str, str]:
    """Which layers stay dense whatever their ranks would be, and why."""
    budget = request.rank if isinstance(request.rank, Budget) else None
    by_macs = budget is not None and budget.kind == "macs"
    large = heavy(budget, model, seen) if budget is not None else ()
    left = left_dense(list(seen.inputs), model, request.keep, by_macs, seen.reads, seen.written, large)
    for name, inputs in seen.inputs.items():
        if by_macs and not any(map(math.prod, inputs)):  # an expert, say, that the examples are not sent to
            left.setdefault(name, "what it is given is empty, and has no MACs that could be saved")
    for name in request.cores or ():
        reason = why_not(model.get_submodule(name))
        if reason is not None:
            raise ConfigError(f"cores: {name} stays dense ({reason})")
        left.pop(name, None)
    return left


def _refuse_dense(
    patterns: Mapping[str, Any], names: Sequence[str], left: Mapping[str, str], tied: Mapping[str, str]
) -> None:
    """Raise ``ConfigError`` for settings of layers that stay dense, and of one whose weight another has first."""
    for pattern in patterns:
        named = [name for name in names if fnmatch(name, pattern)]
        if left.keys() >= set(named):
            raise ConfigError(f"layers: {', '.join(named)} stays dense ({left[named[0]]}); see keep")
        lost = [name for name in named if not fnmatch(tied.get(name, name), pattern)]
        if lost:
            raise ConfigError(f"layers: the weight of {lost[0]} is that of {tied[lost[0]]}, name that layer")


def _swaps(
    request: Request,
    own: Mapping[str, LayerRank],
    model: nn.Module,
    seen: Trace,
    left: dict[str, str],
    tied: Mapping[str, str],
) -> list[Swap]:
    """How each layer that is the first to have its weight will be held; adds to ``left`` those without given cores."""
    swaps = []
    layers = {name: model.get_submodule(name) for name in seen.inputs if name not in left}
    kinds = {name: kind_of(layer) for name, layer in layers.items() if tied.get(name, name) == name}
    weights = {name: kind.weight(layers[name]).numel() for name, kind in kinds.items() if kind is not None}
    room = rooms(request.rank, model, weights) if isinstance(request.rank, Budget) else {}
    for name, inputs in seen.inputs.items():
        kind = kinds.get(name)
        if kind is not None:
            with naming(name):
                checked(kind.weight(layers[name]))
                given = request.cores.get(name) if request.cores is not None else None
                asked = (request.method, request.rank, own, given, room.get(name, math.inf))
                swap = swap_for(name, layers[name], kind, inputs, *asked)
            if swap is not None and request.names(name):
                swaps.append(swap)
            elif swap is not None:
                left[name] = _NO_SMALLER
    return swaps


def _reasons(model: nn.Module, seen: Trace, left: Mapping[str, str]) -> str:
    """Why each layer stays dense, those with the same reason together."""
    found: dict[str, list[str]] = {}
    weighty = {name: str(why_dense(name, model.get_submodule(name), seen)) for name in (*seen.reached, *seen.missed)}
    for name, reason in (weighty | dict(left)).items():
        found.setdefault(reason, []).append(name or "the model itself")
    said = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in found.items())
    return said or "none with a weight of two axes is reached"


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """What is wrong inside is told with the name of the layer that it is wrong with."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"layer {layer}: {error}") from error
