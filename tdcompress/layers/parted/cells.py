"""What recurrent cells compute in a time step, and how a pass over many takes least time where weights are cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ...tensor.contraction.path import Geometry, Path
from ...tensor.contraction.plan import Plan, compile_tree
from ...tensor.contraction.search import merge_tree
from ..base import Factorised

States = tuple[Tensor, ...]
"""What a step leaves for the next, ``(b, hidden)`` each: its output first."""


@dataclass(frozen=True)
class Cell:
    """A recurrent cell. ``gates``: how many; ``states``: how many it keeps.

    ``step``: from ``(b, gates * hidden)`` of the input and of the state before, and all states before, to the states.
    """

    gates: int
    states: int
    step: Callable[[Tensor, Tensor, States], States]


def _lstm(given: Tensor, hidden: Tensor, states: States) -> States:
    """Long short-term memory; the gates are input, forget, cell, output."""
    i, f, g, o = (given + hidden).chunk(4, 1)
    cell = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(given: Tensor, hidden: Tensor, states: States) -> States:
    """Gated recurrent units; the gates are reset, update, new."""
    (r, z, n), (hidden_r, hidden_z, hidden_n) = given.chunk(3, 1), hidden.chunk(3, 1)
    n = (n + (r + hidden_r).sigmoid() * hidden_n).tanh()
    return (n + (z + hidden_z).sigmoid() * (states[0] - n),)


CELLS = {
    "LSTM": Cell(4, 2, _lstm),
    "GRU": Cell(3, 1, _gru),
    "RNN_TANH": Cell(1, 1, lambda given, hidden, states: ((given + hidden).tanh(),)),
    "RNN_RELU": Cell(1, 1, lambda given, hidden, states: ((given + hidden).relu(),)),
}
"""By the name that torch's modules have for them (``mode``)."""

STEPS, LAYERS, KERNEL = "steps", "layers", "kernel"
"""How a pass is computed: step by step; by a call of torch's kernel for each layer, whose inputs are contracted before
with all cores of their weight but the last; or by one call for all layers, on weights put together."""
_NEVER_WHOLE = ("contract", "chain")
"""Plans that put no weight together."""
_CELL = 12
"""Calls element by element that a kernel spares in each step. A CPU has one for LSTMs only, whose products are as fast
as its convolutions (oneDNN's); in the others torch computes step by step, too, and spares the time of one such call."""


def cheapest(layer: nn.RNNBase, held: Mapping[str, Factorised], best: Sequence[Path], merging: bool) -> str:
    """How a pass of ``layer`` takes least time by the cost model: ``STEPS``, ``LAYERS`` or ``KERNEL``.

    ``held``: its weights that are cores, by the names of torch's parameters, with the ``best`` path of each;
    ``merging``: every pass puts weights together anew. What weights that stay dense take is the same either way.
    """
    if any(part.planner.plan in _NEVER_WHOLE for part in held.values()):
        return STEPS
    stepped = next((part for name, part in held.items() if not once(name)), None)
    first = stepped or next(iter(held.values()))
    rates, rows = first.planner.rates, geometry(first).batch
    steps, rows = (first.planner.uses, rows) if stepped else (rows, 1)
    units, cells = rows * layer.hidden_size, layer.num_layers * (2 if layer.bidirectional else 1)
    apart = cells * steps * rates.contraction(units, 1, 1, 1, 1, (units, units, units))
    on_gpu, in_kernel = first.tensors()[0].is_cuda, rates
    if layer.mode == "LSTM" or on_gpu:
        apart *= _CELL
    if layer.mode == "LSTM" and not on_gpu:
        in_kernel = replace(rates, product=rates.convolution)
    layers = kernel = 0.0
    for (name, part), path in zip(held.items(), best, strict=True):
        (new, summed), rows = part.weight_shape, geometry(part).batch
        product = in_kernel.contraction(rows, 1, summed, new, 1, (rows * summed, summed * new, rows * new))
        whole = merging * compile_tree(part.graph, merge_tree(part.graph)).seconds(rates)
        if once(name):
            plan, whole = part.compiled(path), whole + product
            ahead = isinstance(plan, Plan) and plan.ends_in_product
            apart, layers = apart + path.seconds, layers + (path.seconds if ahead else whole)
        else:
            whole += steps * (product - 3 * rates.call)
            apart, layers = apart + steps * path.seconds, layers + whole
        kernel += whole
    return min((kernel, KERNEL), (layers, LAYERS), (apart, STEPS), key=lambda way: way[0])[1]


def once(name: str) -> bool:
    """Whether the weight of this name is applied once a pass, to all steps."""
    return name.startswith("weight_ih")


def geometry(part: Factorised) -> Geometry:
    """The inputs that a weight is planned for."""
    return part.geometry(part.planner.batch_size, part.planner.input_shape)
