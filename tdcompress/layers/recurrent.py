"""Recurrent layers as two linear ones, so that either weight can be held as cores, and what a time step computes.

``input`` is applied to all time steps in one call, ``hidden`` to one step after the other; each holds the weights of
all gates in one, in torch's order (the input's as cores: Yang et al. 2017, section 3; both: Yin et al. 2021). With
equal weights the results are those of ``torch.nn.LSTM`` and ``torch.nn.GRU``. Their fused kernels know dense weights
only: a step here is the same few calls for every format, dense included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .linear import StepLinear, prepared

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


class Recurrent(nn.Module):
    """``(b, steps, features)`` to the hidden states ``(b, steps, hidden)``, the first from a state of zeros.

    The states keep the type of the input, also where autocast computes the gates in bfloat16.
    """

    cell: Cell

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.size = hidden
        self.input = nn.Linear(features, self.cell.gates * hidden)
        self.hidden = StepLinear(hidden, self.cell.gates * hidden)

    def forward(self, x: Tensor) -> Tensor:
        states: States = (x.new_zeros(x.shape[0], self.size),) * self.cell.states
        steps = self.input(x).unbind(1)
        outputs, hidden = [], prepared(self.hidden)
        for given in steps:
            states = self.cell.step(given, hidden(states[0]), states)
            outputs.append(states[0])
        return torch.stack(outputs, 1)


class LSTM(Recurrent):
    """Long short-term memory."""

    cell = CELLS["LSTM"]


class GRU(Recurrent):
    """Gated recurrent units."""

    cell = CELLS["GRU"]
