"""What cuts are to save, of a network and of each weight: parameters, or multiply-accumulates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from operator import attrgetter

from torch import nn

from ...layers.base import Factorised
from ...layers.kept import Kept
from ...layers.kinds import weights_once
from ...tensor.graph import Graph
from ..survey.counts import counted_from, distinct
from ..survey.inputs import Examples
from ..survey.plans import layer_macs
from ..survey.trace import Inputs, Trace, trace

Cost = Callable[[Graph], int]
"""What a weight costs as a graph, whose ranks may be others."""


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulates for an input of the shape ``image``, which the network is shown for it; None: parameters."""

    image: Sequence[int] | None = None

    @property
    def damping(self) -> float:
        """The power of a layer's sensitivity that counts: with all of it what a cut costs at once, none as if layers
        were alike.

        Of parameters a third: training makes up for much of what a cut costs, and components of early layers, where the
        loss feels most, take the most multiply-adds for their size. Where these are what is to be saved, all of it
        (measured: docs/ranks_and_budgets.md).
        """
        return 1 / 3 if self.image is None else 1.0

    def total(self, model: nn.Module) -> int:
        """Of the whole network as it is."""
        if self.image is None:
            return distinct(model.parameters())
        return int(counted_from(model, self._seen(model))["macs"])

    def each(self, model: nn.Module) -> dict[str, Cost]:
        """Of each weight of ``model`` that cores hold, by name, see ``weights_once``.

        Multiply-accumulates are those along the plan that the layer would have at the ranks that are asked for.
        """
        weights = weights_once(model)
        if self.image is None:
            return dict.fromkeys(weights, attrgetter("parameters"))
        inputs = self._seen(model).inputs
        return {name: _macs(layer, inputs.get(name, Counter())) for name, layer in weights.items()}

    def _seen(self, model: nn.Module) -> Trace:
        return trace(model, Examples.of(model, self.image, None))


PARAMETERS = Costs()


def _macs(layer: Factorised, inputs: Inputs) -> Cost:
    known: dict[tuple[int, ...], int] = {}

    def cost(graph: Graph) -> int:
        ranks = tuple(graph.ranks.values())
        if ranks not in known:
            other = copy(layer)  # of the same cores, to be asked only what it would cost
            other.graph, other.kept = graph, Kept()
            other._replan()
            known[ranks] = layer_macs(other, inputs)
        return known[ranks]

    return cost
