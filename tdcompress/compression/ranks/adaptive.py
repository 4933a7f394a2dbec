"""Ranks that are found while training: start high, and cut what the weights turn out not to need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

from ...layers.base import Factorised
from ...layers.kinds import weights_once
from ...tensor.caps import bottleneck, capped, grain
from ...tensor.graph import Graph
from ...tensor.rounding import energies, truncated
from .budget import TOLERANCE
from .costs import PARAMETERS, Cost, Costs

LEAST = 1 / 6
"""What part of the numbers that would pass a layer, were all layers cut alike, a cut must let pass. What its components
hold says what each is worth beside the others; of a layer that loses nearly all at once it says nothing."""


def start(target: float, dense: float) -> float:
    """The total to start with for ``target`` in the end: halfway to that of the ``dense`` layers, on a log scale."""
    return math.sqrt(target * dense)


@dataclass(frozen=True)
class Shrinkage:
    """Cuts a network down to a total of ``target`` over the first half of ``epochs``, by the same factor after each.

    ``fixed``: name patterns of the layers whose ranks stay; ``multiple``, ``costs``: see ``shrink``; ``begun``: of the
    epochs those that the network has not been factorised in, the first half of the others counts.

    See ``shrink`` for what is cut, by which the ranks are distributed by what the training made of them (in the spirit
    of Schotthoefer et al. 2022, *Low-rank lottery tickets*, and Zangrando et al. 2024).
    """

    target: int
    epochs: int
    fixed: tuple[str, ...] = ()
    multiple: int = 1
    begun: int = 0
    costs: Costs = PARAMETERS

    def wanted(self, model: nn.Module, epochs_done: int) -> int | None:
        """What ``model`` may cost after so many epochs, None if nothing is cut there."""
        done = epochs_done - self.begun
        left = max(1, (self.epochs - self.begun) // 2) - done
        if done < 1 or left < 0:
            return None
        present = self.costs.total(model)
        return round(present * (self.target / present) ** (1 / (left + 1)))

    def missed(self, model: nn.Module, epochs_done: int) -> float:
        """By what part of its target ``model`` is larger after the last cut, below 0 if smaller; 0 if it is met."""
        if self.wanted(model, epochs_done) is None or self.wanted(model, epochs_done + 1) is not None:
            return 0.0
        more = self.costs.total(model) / self.target - 1
        return more if abs(more) > TOLERANCE else 0.0


def shrink(
    model: nn.Module,
    target: int,
    fixed: Sequence[str] = (),
    multiple: int = 1,
    sensitivity: Mapping[str, float] | None = None,
    last: bool = False,
    costs: Costs = PARAMETERS,
) -> list[nn.Parameter]:
    """Cut bonds of ``model``'s layers, but those of ``fixed`` names, in place, down to ``target`` of ``costs``.

    The components are cut that have the least share of their weight's squared norm for what they cost, of all layers
    and bonds together, but for the last ones of a layer, see ``LEAST``. ``sensitivity``: by the names of layers how
    much such a share of each is worth, in any unit; those without are taken for the geometric mean. It counts to the
    power of ``costs.damping``.

    Gives the cores that changed. What the last cut took too much is given back; where the tolerance of a budget is not
    met otherwise, up to that much above ``target``. Ranks become multiples of their grain (see ``tensor.caps.grain``),
    but for what is given back at last where they leave the total too far from its target. ``last``: no cut follows, so
    where one component is more than what is left over, others make room for it.
    """
    worth, each = _worth(sensitivity or {}, costs.damping), costs.each(model)
    layers = [
        _Layer(module, multiple, worth.get(name, 1.0), each[name])
        for name, module in weights_once(model).items()
        if not any(fnmatch(name, pattern) for pattern in fixed)
    ]
    excess, held = costs.total(model) - target, sum(layer.spent for layer in layers)
    for layer in layers:
        layer.least *= LEAST * max(0.0, 1 - excess / max(1, held))
    best = [layer.cheapest() for layer in layers]
    while excess > 0 and any(step is not None for step in best):
        k, (_, ranks, saved) = min(((k, step) for k, step in enumerate(best) if step), key=lambda found: found[1][0])
        layers[k].ranks = ranks
        best[k] = layers[k].cheapest()
        excess -= saved
    while True:  # the last cut may have taken more than was needed
        near = excess >= -TOLERANCE * target
        room = -excess if near else TOLERANCE * target - excess
        steps = [(worth, k, ranks, cost) for k, layer in enumerate(layers) for worth, ranks, cost in layer.raises(room)]
        if not steps and (near or multiple == 1):
            break
        if not steps:
            multiple //= 2
            for layer in layers:
                layer.multiple = multiple
            continue
        _, k, ranks, cost = max(steps, key=lambda step: step[0])
        layers[k].ranks = ranks
        excess += cost
    if last and not near:
        _trade(layers, excess, TOLERANCE * target)
    cuts = [(layer.module, cut) for layer in layers if (cut := layer.cut()) is not None]
    for module, (graph, cores) in cuts:  # once none of them can fail any more
        module.resize(graph, cores)
    return [core for module, _ in cuts for core in module.cores.values()]


def _trade(layers: Sequence[_Layer], excess: float, tolerance: float) -> None:
    """Give a component back that is more than the total is too small by, for others that are cut, if that meets it."""
    dearer = [
        (worth, k, ranks, cost)
        for k, layer in enumerate(layers)
        for alone in (True, False)
        for worth, ranks, cost in layer.raises(math.inf, alone)
    ]
    for _, k, ranks, cost in sorted(dearer, key=lambda step: -step[0]):
        before = [layer.ranks for layer in layers]
        layers[k].ranks, over = ranks, excess + cost
        while over > tolerance:
            others = [(step, j) for j, layer in enumerate(layers) if j != k for step in layer.cuts()]
            fitting = [(step, j) for step, j in others if step[2] <= over + tolerance]
            if not fitting:
                break
            (_, fewer, saved), j = min(fitting, key=lambda found: found[0][0])
            layers[j].ranks, over = fewer, over - saved
        if abs(over) <= tolerance:
            return
        for layer, ranks in zip(layers, before, strict=True):
            layer.ranks = ranks


def _worth(sensitivity: Mapping[str, float], damping: float) -> dict[str, float]:
    """What a share of each layer counts, one for the geometric mean."""
    logs = {name: math.log(value) for name, value in sensitivity.items()}
    mean = sum(logs.values()) / max(1, len(logs))
    return {name: math.exp(damping * (log - mean)) for name, log in logs.items()}


@dataclass
class _Layer:
    """A layer, the ranks that it is to have, and what each component of its bonds holds, times its ``worth``."""

    module: Factorised
    multiple: int
    worth: float
    cost: Cost
    ranks: dict[str, int] = field(init=False)
    energies: dict[str, list[float]] = field(init=False)
    least: float = field(init=False)

    def __post_init__(self) -> None:
        graph = self.module.graph
        self.ranks, self.least = dict(graph.ranks), bottleneck(graph) or 0.0
        with torch.no_grad():
            self.energies = {
                bond: (self.worth * energies(graph, self.module.tensors(), bond)).tolist() for bond in graph.bonds
            }

    @property
    def spent(self) -> int:
        """What it costs at these ranks."""
        return self.cost(self.module.graph.with_ranks(self.ranks))

    def cheapest(self) -> tuple[float, dict[str, int], int] | None:
        """The cut that loses least for what it saves."""
        return min(self.cuts(), default=None, key=lambda step: step[0])

    def cuts(self) -> Iterator[tuple[float, dict[str, int], int]]:
        """A cut of each bond that saves something: what it loses for that, the ranks after it, and what it saves."""
        here = self.spent
        for bond, rank in self.ranks.items():
            if rank > 1:
                lower = rank - 1 - (rank - 1) % grain(self.module.graph, bond, rank - 1, self.multiple)
                graph = capped(self.module.graph, {**self.ranks, bond: lower})
                if (bottleneck(graph) or 0.0) >= self.least and (saved := here - self.cost(graph)) > 0:
                    yield sum(self.energies[bond][lower:rank]) / saved, graph.ranks, saved

    def raises(self, room: float, alone: bool = True) -> Iterator[tuple[float, dict[str, int], int]]:
        """The same for each bond that can have components back at a cost of at most ``room``.

        ``alone``: without the layer's other bonds of the same rank, which may have to grow with it for it to be of use.
        """
        here = self.spent
        for bond, rank in self.ranks.items():
            step = grain(self.module.graph, bond, rank, self.multiple)
            higher = min(rank + step - rank % step, len(self.energies[bond]))
            ranks = {b: higher if b == bond or (n == rank and not alone) else n for b, n in self.ranks.items()}
            held = all(n <= len(self.energies[b]) for b, n in ranks.items())
            if rank == higher or not held or (graph := capped(self.module.graph, ranks)).ranks != ranks:
                continue
            if 0 < (cost := self.cost(graph) - here) <= room:
                yield sum(self.energies[bond][rank:higher]) / cost, ranks, cost

    def cut(self) -> tuple[Graph, list[Tensor]] | None:
        """The module's graph with these ranks, and cores for it; None where it has them already."""
        if self.ranks == self.module.graph.ranks:
            return None
        with torch.no_grad():
            return truncated(self.module.graph, self.module.tensors(), self.ranks)
