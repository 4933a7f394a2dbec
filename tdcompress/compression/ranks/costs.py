"""What a budget counts: the parameters of a network, or its multiply-accumulates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from operator import attrgetter

from torch import nn

from ...layers.base import Factorised
from ...layers.kept import Kept
from ...layers.kinds import factorised, weights_once
from ...tensor.graph import Graph
from ..survey.counts import counted_from, distinct
from ..survey.inputs import Examples
from ..survey.plans import layer_macs
from ..survey.trace import Inputs, Trace, trace

Cost = Callable[[Graph], int]
"""What a weight costs as a graph, whose ranks may be others."""


@dataclass(frozen=True)
class Costs:
    """Parameters, or multiply-accumulates per image where the shape of an ``image`` is given."""

    image: Sequence[int] | None = None

    def total(self, model: nn.Module) -> int:
        """Of the whole network as it is."""
        if self.image is None:
            return distinct(model.parameters())
        return int(counted_from(model, self._seen(model))["macs"])

    def each(self, model: nn.Module) -> dict[str, Cost]:
        """Of each weight of ``model`` that cores hold, by name, see ``weights_once``, contracted as is planned then."""
        weights = weights_once(model)
        if self.image is None:
            return dict.fromkeys(weights, attrgetter("parameters"))
        seen, names = self._seen(model), {layer: name for name, layer in factorised(model).items()}
        return {
            name: _macs([(user, seen.inputs.get(names[user], Counter())) for user in (layer, *layer.tied)])
            for name, layer in weights.items()
        }

    def _seen(self, model: nn.Module) -> Trace:
        return trace(model, Examples.of(model, self.image, None))


PARAMETERS = Costs()


def _macs(users: Sequence[tuple[Factorised, Inputs]]) -> Cost:
    """Of a weight that these layers have, for what each of them is given."""
    known: dict[tuple[int, ...], int] = {}

    def cost(graph: Graph) -> int:
        ranks = tuple(graph.ranks.values())
        if ranks not in known:
            known[ranks] = sum(layer_macs(_planned(layer, graph), inputs) for layer, inputs in users)
        return known[ranks]

    return cost


def _planned(layer: Factorised, graph: Graph) -> Factorised:
    """A layer of these ranks that is planned as this one would be, to be asked what it costs."""
    other = copy(layer)
    other.graph, other.kept = graph, Kept()
    other._replan()
    return other
