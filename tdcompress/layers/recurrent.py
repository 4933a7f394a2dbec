"""Recurrent layers as two linear ones, so that either weight can be held as cores, and images as sequences.

``input`` is applied to all time steps in one call, ``hidden`` to one step after the other; each holds the weights of
all gates in one, in torch's order (the input's as cores: Yang et al. 2017, section 3; both: Yin et al. 2021). With
equal weights the results are those of ``torch.nn.LSTM`` and ``torch.nn.GRU``. Their fused kernels know dense weights
only: a step here is the same few calls for every format, dense included.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .linear import StepLinear, prepared


class Recurrent(nn.Module):
    """``(b, steps, features)`` to the hidden states ``(b, steps, hidden)``, the first from a state of zeros.

    The states keep the type of the input, also where autocast computes the gates in bfloat16.
    """

    gates: ClassVar[int]

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.size = hidden
        self.input = nn.Linear(features, self.gates * hidden)
        self.hidden = StepLinear(hidden, self.gates * hidden)


class LSTM(Recurrent):
    """Long short-term memory; the gates are input, forget, cell, output."""

    gates = 4

    def forward(self, x: Tensor) -> Tensor:
        state = cell = x.new_zeros(x.shape[0], self.size)
        steps = self.input(x).unbind(1)
        states, hidden = [], prepared(self.hidden)
        for given in steps:
            i, f, g, o = (given + hidden(state)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            states.append(state)
        return torch.stack(states, 1)


class GRU(Recurrent):
    """Gated recurrent units; the gates are reset, update, new."""

    gates = 3

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], self.size)
        steps = self.input(x).unbind(1)
        states, hidden = [], prepared(self.hidden)
        for given in steps:
            (r, z, n), (hidden_r, hidden_z, hidden_n) = given.chunk(3, 1), hidden(state).chunk(3, 1)
            n = (n + (r + hidden_r).sigmoid() * hidden_n).tanh()
            state = n + (z + hidden_z).sigmoid() * (state - n)
            states.append(state)
        return torch.stack(states, 1)
