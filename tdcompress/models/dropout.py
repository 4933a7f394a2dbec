"""Dropout whose random numbers cost a CPU little."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16  # of a draw


class Dropout(nn.Dropout):
    """``nn.Dropout``, on a CPU with 16 random bits an entry: ``p`` is rounded to a multiple of 2**-16.

    What is left is scaled by one over the share that is left (in the input's precision), so the expectation is the
    input in spite of the rounding; a ``p`` that would round to 0 or 1 is torch's own business. The draws come from
    torch's default generator, four to one of its 64-bit numbers: torch's kernel draws a number an entry, which is a
    tenth of a small network's step.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * _LEVELS)
        drawn_here = self.training and x.device.type == "cpu" and 0 < dropped < _LEVELS
        mapped = torch._C._functorch.peek_interpreter_stack() is not None  # a draw for each, or one for all: it knows
        if not drawn_here or mapped or torch.compiler.is_compiling():  # the compiler fuses draws of its own
            return super().forward(x)
        noise = torch.empty_like(x, requires_grad=False)  # dense, in the input's memory format
        draws = (
            torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
            .random_(-(2**63), None)
            .view(torch.int16)
        )
        kept = draws[: x.numel()].as_strided(x.shape, noise.stride()) >= dropped - _LEVELS // 2
        return x * noise.copy_(kept).mul_(_LEVELS / (_LEVELS - dropped))
