"""How much the loss feels of a change of each layer's weight, by what an optimizer remembers of the gradients."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.optim import Optimizer

from ...layers.kinds import weights_once

_SQUARES = ("exp_avg_sq", "square_avg", "sum")  # what torch's optimizers call mean squares of the gradient
_AVERAGE = "ax"  # ASGD's, of the weights


def sensitivities(model: nn.Module, optimizer: Optimizer) -> dict[str, float]:
    """By the name of each layer that holds cores the mean over them of ||C||^2 ||dL/dC||^2 / |C|, of |C| entries.

    A change of C by a part e of its square norm, in no direction in particular, changes the loss by about that times e
    (the trace of the empirical Fisher information; Theis et al. 2018, *Faster gaze prediction with dense networks and
    Fisher pruning*, section 2). Squared gradients are those of mini-batches as the optimizer has them: mean squares, or
    the square of a momentum, in which noise outweighs the mean by far. They are compared among layers only, in a common
    unit. A layer of which it has neither, or whose gradients vanish or are not finite, is left out.
    """
    found = {}
    for name, layer in weights_once(model).items():
        felt = [
            float(core.detach().square().sum() * square) / core.numel()
            for core in layer.tensors()
            if (square := _squared_gradient(core, optimizer)) is not None
        ]
        if 0 < sum(felt) < math.inf:
            found[name] = sum(felt) / len(felt)
    return found


def _squared_gradient(core: nn.Parameter, optimizer: Optimizer) -> Tensor | None:
    held = {
        key: value
        for key, value in optimizer.state.get(core, {}).items()
        if isinstance(value, Tensor) and value.shape == core.shape
    }
    for key in _SQUARES:
        if key in held:
            return held[key].sum()
    return next((value.square().sum() for key, value in held.items() if key != _AVERAGE), None)
