"""Muon, for the cores of a network and its dense weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

from ...layers.kinds import dense_weights, weights_once
from ...tensor.fitting.initial import towards_root

Unfolding = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""A parameter's axes: those that number its blocks, and those that make the rows and the columns of each."""

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: singular values from 0 to 1 end near 1, in five steps


class Muon(Optimizer):
    """Momentum of matrices made orthogonal (Jordan et al. 2024), and AdamW on the rest, in one optimizer.

    ``unfoldings``: how a parameter is seen as a matrix, or as blocks that are; one that is not in it is learned by
    AdamW. By default every parameter of two or more axes is one, its first axis against all others. A matrix of m rows
    and n columns moves by 0.2 max(m, n)^(1/2) of the orthogonal one, whose entries have then the size of AdamW's steps,
    so that one ``lr`` and one ``weight_decay`` suit both (Liu et al. 2025, Muon is Scalable, section 2.2).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        steps: int = 5,
        unfoldings: Mapping[nn.Parameter, Unfolding] | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps), ("steps", steps - 1)):
            if value < 0:
                raise ValueError(f"{name} is out of range: {name}={value}")
        if not all(0 <= value < 1 for value in (momentum, *betas)):
            raise ValueError(f"momentum={momentum} and betas={tuple(betas)} must lie between 0 and 1")
        options = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, options | {"betas": tuple(betas), "eps": eps, "steps": steps})
        self.unfoldings = unfoldings

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step along the gradients; ``closure`` computes the loss again, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            others = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                axes = self._unfolding(parameter)
                if axes is None:
                    others.append(parameter)
                else:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * self._orthogonal(parameter, axes, group))
            self._adamw(others, group)
        return loss

    def _unfolding(self, parameter: nn.Parameter) -> Unfolding | None:
        if self.unfoldings is not None:
            return self.unfoldings.get(parameter)
        return _by_first_axis(parameter) if parameter.dim() > 1 else None

    def _adamw(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
                state |= {"step": torch.tensor(0.0, device="cpu"), **zeros}
        means, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        first, second = group["betas"]
        adamw(
            cast("list[Tensor]", parameters),
            [cast(Tensor, parameter.grad) for parameter in parameters],
            means,
            squares,
            [],
            steps,
            amsgrad=False,
            maximize=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )

    def _orthogonal(self, parameter: nn.Parameter, axes: Unfolding, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        change = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        order = [axis for part in axes for axis in part]
        permuted = change.permute(order)
        matrix = permuted.reshape([math.prod(change.shape[axis] for axis in part) for part in axes])
        matrix = orthogonalised(matrix, group["steps"]) * (0.2 * math.sqrt(max(matrix.shape[1:])))
        return matrix.reshape(permuted.shape).permute([order.index(axis) for axis in range(len(order))])


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix of each (.., m, n), roughly: singular values between about 0.7 and 1.2."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = _QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(matrices.dtype)


def _by_first_axis(parameter: Tensor) -> Unfolding:
    return (), (0,), tuple(range(1, parameter.dim()))


def unfoldings(model: nn.Module) -> dict[nn.Parameter, Unfolding]:
    """Each core as a matrix towards the next core on the way to the root, each dense weight as (out | all else).

    A core that shares modes with that one is a matrix for each of their values. Left to AdamW, as is usual (Jordan et
    al. 2024): the network's first and last weights where they are dense, and weights of other layers than linear ones
    and convolutions, such as tables, or gates that lie one on top of the other.
    """
    held, dense = weights_once(model), dense_weights(model)
    names = [name for name, _ in model.named_modules() if name in held or name in dense]
    found: dict[nn.Parameter, Unfolding] = {}
    layers = dict(model.named_modules())
    for name, weight in dense.items():
        if name not in (names[0], names[-1]) and isinstance(layers.get(name), nn.Linear | _ConvNd):
            found[weight] = _by_first_axis(weight)
    for layer in held.values():
        towards = towards_root(layer.graph)
        for core, parameter in zip(layer.graph.cores, layer.tensors(), strict=True):
            blocks, columns = (tuple(core.indices.index(index) for index in part) for part in towards[core.name])
            rows = tuple(axis for axis in range(parameter.dim()) if axis not in (*blocks, *columns))
            found[parameter] = blocks, rows, columns
    return found
