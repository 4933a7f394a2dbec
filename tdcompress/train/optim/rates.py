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

_STEPS = 12  # by which optimizers that warm up have done so

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
    Variances are the mean squares of the cores as they are now; the result is rounded to the nearest of ``MULTIPLES``,
    and 1 where a weight is all zero.
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


def gradient_degree(build: Callable[[list[Any]], Optimizer]) -> int:
    """1 if gradients of twice the size make steps of twice the length (SGD), 0 if of the same (Adam).

    Raises ``ConfigError`` for an optimizer that follows neither rule, whose steps depend on the parameter, or whose
    weight decay is not proportional to the learning rate.
    """

    def step(gradient: float, value: float, multiple: float = 0.0) -> float:
        """How far the last of some steps goes; with a ``multiple`` at so many times the rate, with weight decay."""
        parameter = nn.Parameter(torch.full((2,), value, device="cpu"))
        optimizer = build([{"params": [parameter]}])
        for group in optimizer.param_groups:
            group["weight_decay"] = group.get("weight_decay", 0.0) / multiple if multiple else 0.0
            group["lr"] = group["lr"] * (multiple or 1.0)
        for _ in range(_STEPS):
            before = parameter.detach().clone()
            parameter.grad = torch.full_like(parameter, gradient)
            optimizer.step()
        return float((parameter.detach() - before).abs().max())

    try:
        short, long, elsewhere = step(0.5, 0.0), step(1.0, 0.0), step(1.0, 100.0)
        decayed, as_much = step(0.0, 1.0, 1.0), step(0.0, 1.0, 4.0)
    except Exception:  # such as one that wants the loss again
        short = long = elsewhere = decayed = as_much = 0.0
    for degree in (0, 1):
        if short > 0 and math.isclose(long / short, 2.0**degree, rel_tol=0.05):
            if not math.isclose(elsewhere, long, rel_tol=0.05) or not math.isclose(decayed, as_much, rel_tol=0.05):
                break
            return degree
    raise ConfigError(
        "optim.core_lr=balanced: the steps of optim.optimizer are not lr times the gradient, or times something of one "
        "size, with a weight decay beside it that is in proportion to lr; use optim.core_lr=same"
    )


def follow_multiples(optimizer: Optimizer) -> None:
    """Let each step take a group's rate times its ``multiple``; schedules see the network's rate alone."""
    rates: list[Any] = []

    def before(optimizer: Optimizer, *_: Any) -> None:
        after(optimizer)  # where the step before was broken off
        for group in optimizer.param_groups:
            rates.append(group["lr"])
            group["lr"] = group["lr"] * group["multiple"]

    def after(optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate
        rates.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
