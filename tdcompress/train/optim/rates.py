"""The learning rate of each core, as a multiple of the network's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ...layers.kinds import weights_once
from ...tensor.errors import ConfigError
from ...tensor.norm import squared_norm

MULTIPLES = tuple(2.0**power for power in range(-8, 17))
"""What the multiples are rounded to, so that many cores share a group of the optimizer."""


def core_multiples(model: nn.Module, degree: int) -> dict[nn.Parameter, float]:
    """For each core the multiple of the learning rate at which a step changes its layer's output as dense weights do.

    A weight W of |W| entries is held as K cores. W is linear in each core C, and the other cores taken as independent
    with mean zero, a change of C by d changes W by |d|^2 |W| var(W) / (|C| var(C)) in square norm, as does the output
    for inputs of unit covariance; and E |dL/dC|^2 = |dL/dW|^2 var(W) / var(C). So at

        (var(C) / var(W))^((1 + p) / 2) (|C| / |W|)^(p / 2) / K

    times its rate the cores of a layer change the output equally, and together as much as the dense weight would, under
    an optimizer whose step is proportional to the gradient (``degree`` p = 1) or of one size for each entry (p = 0).
    Qiu et al. 2024 (Compute Better Spent, section 3) derive longer steps for blocks and p = 0, from spectral norms.
    Variances are the mean squares of the cores as they are now; the result is rounded to one of ``MULTIPLES``.
    """
    found: dict[nn.Parameter, float] = {}
    for layer in weights_once(model).values():
        cores = layer.tensors()
        entries = layer.graph.dense_parameters
        square = float(squared_norm(layer.graph, [core.detach().double() for core in cores])) / entries
        for core in cores:
            ratio = float(core.detach().double().square().mean()) / square if square else 0.0
            multiple = ratio ** ((1 + degree) / 2) * (core.numel() / entries) ** (degree / 2) / len(cores)
            found[core] = min(MULTIPLES, key=lambda known: abs(math.log2(known / multiple))) if multiple else 1.0
    return found


def gradient_degree(build: Callable[[list[nn.Parameter]], Optimizer]) -> int:
    """1 if a gradient of twice the size makes the first step twice as long (SGD), 0 if as long as before (Adam).

    Raises ``ConfigError`` for an optimizer whose first step follows neither rule, or that takes no plain step.
    """
    try:
        short, long = (_first_step(build, size) for size in (0.5, 1.0))
    except TypeError:  # LBFGS wants the loss again
        short = long = 0.0
    for degree in (0, 1):
        if short > 0 and math.isclose(long / short, 2.0**degree, rel_tol=0.05):
            return degree
    raise ConfigError(
        "optim.core_lr=balanced: the steps of optim.optimizer are neither proportional to the gradient nor independent "
        "of its size; use optim.core_lr=same"
    )


def _first_step(build: Callable[[list[nn.Parameter]], Optimizer], size: float) -> float:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full_like(parameter, size)
    build([parameter]).step()
    return float(parameter.detach().abs().max())


def follow_multiples(optimizer: Optimizer) -> None:
    """Let each step take a group's rate times its ``multiple``; schedules see the network's rate alone."""

    def before(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["rate"] = group["lr"]
            group["lr"] = group["lr"] * group.get("multiple", 1.0)

    def after(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group.pop("rate")

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
