"""The parameters as an optimizer takes them: each core's learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...config.schema import TrainConfig
from ...layers.kinds import dense_weights, factorised, weights_once
from ...tensor.errors import ConfigError
from ...tensor.norm import squared_norm
from .build import build_optimizer, weight_decay
from .muon import Muon, unfoldings
from .rates import MULTIPLES, core_multiples, follow_multiples, gradient_degree


class Groups:
    """The groups of an optimizer while cores take the place of weights, and change their sizes.

    ``names``: of a run that begins at full rank the layers that are to hold cores. There are as many groups before as
    after, so that schedules go on.
    """

    def __init__(self, config: TrainConfig, names: Sequence[str] | None, device: torch.device) -> None:
        self.config, self.names, self.device = config, names, device
        self.weight_decay = weight_decay(config)
        self.degree: int | None = None

    def optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer of the model's parameters.

        Raises ``ConfigError`` for a ``method.decay`` that it would not carry out.
        """
        if self.config.method.decay != "factors" and (self.names or factorised(model)):
            self._check_decay(self.config.method.decay)
        if self.config.optim.core_lr == "balanced" and (self.names or factorised(model)):
            self.degree = gradient_degree(partial(build_optimizer, self.config, device=self.device))
        optimizer = build_optimizer(self.config, self._of(model, self.multiples(model)), self.device)
        if self.degree is not None:
            follow_multiples(optimizer)
        self._unfold(optimizer, model)
        return optimizer

    def _check_decay(self, decay: str) -> None:
        if not self.weight_decay:
            raise ConfigError(f"method.decay={decay} changes nothing where optim.optimizer.weight_decay is 0")
        try:
            apart = gradient_degree(partial(build_optimizer, self.config, device=self.device)) == 0
        except ConfigError:  # a rule of its own
            apart = False
        if apart and decay == "frobenius":
            raise ConfigError(
                "method.decay=frobenius is a part of the gradient, which optim.optimizer brings to one size whatever "
                "the weight decay: use torch.optim.SGD, or another decay"
            )

    def multiples(self, model: nn.Module) -> dict[str, float]:
        """Of the network's learning rate, what each core has by its name: none where all have the same."""
        if self.degree is None:
            return {}
        found = core_multiples(model, self.degree)
        return {name: found[core] for name, core in model.named_parameters() if core in found}

    def renew(self, optimizer: Optimizer, model: nn.Module, multiples: Mapping[str, float]) -> None:
        """Group the parameters as they are now, at these ``multiples``."""
        for group, new in zip(optimizer.param_groups, self._of(model, multiples), strict=True):
            group |= new
        self._unfold(optimizer, model)

    def _of(self, model: nn.Module, multiples: Mapping[str, float]) -> list[dict[str, Any]]:
        decay = self.config.method.decay
        if self.degree is None:
            return parameter_groups(model, decay, self.weight_decay, self.names)
        return groups_by_rate(model, multiples, self.weight_decay, 0.0 if decay == "frobenius" else 1.0)

    def _unfold(self, optimizer: Optimizer, model: nn.Module) -> None:
        if isinstance(optimizer, Muon):
            optimizer.unfoldings = unfoldings(model)


def groups_by_rate(
    model: nn.Module, multiples: Mapping[str, float], weight_decay: float, share: float = 1.0
) -> list[dict[str, Any]]:
    """The parameters that learn at the network's rate, and for each of ``MULTIPLES`` those at so many times it.

    Optimizers multiply weight decay by the rate, so of those it is divided by the multiple, and a step takes as much of
    a core as of any other parameter; ``share`` is what the cores get of it.
    """
    named = list(model.named_parameters())
    others = [parameter for name, parameter in named if name not in multiples]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": weight_decay, "multiple": 1.0}]
    for multiple in MULTIPLES:
        cores = [core for name, core in named if multiples.get(name) == multiple]
        groups.append({"params": cores, "weight_decay": weight_decay * share / multiple, "multiple": multiple})
    return groups


def multiples_in(optimizer: Optimizer, model: nn.Module) -> dict[str, float]:
    """The multiples at which cores learn, by name."""
    held = {
        core: group["multiple"]
        for group in optimizer.param_groups[1:]
        for core in group["params"]
        if "multiple" in group
    }
    return {name: held[core] for name, core in model.named_parameters() if core in held}


def parameter_groups(
    model: nn.Module, decay: str, weight_decay: float, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The model's parameters as an optimizer takes them, the cores with a weight decay of their own.

    ``names``: the layers that hold cores, or will once they are switched, by default those that do. One that is dense
    decays as any other; there are as many groups before a switch as after it.

    ``decay``: ``factors`` decays each core as any other parameter; ``scaled`` times a layer's parameters / dense
    parameters (Gray et al. 2019, section 4: fewer parameters need less of it); ``frobenius`` leaves the cores to
    ``frobenius_penalty``.
    """
    held, dense = factorised(model), dense_weights(model)
    if decay == "factors" or not weight_decay or not (held or names):
        return [{"params": list(model.parameters())}]
    apart: list[tuple[list[nn.Parameter], float]] = []
    if decay == "scaled":
        for name in held if names is None else names:
            layer = held.get(name)
            share = layer.graph.parameters / layer.graph.dense_parameters if layer else 1.0
            parameters = layer.tensors() if layer else [dense[name]]
            if not any(parameters[0] is others[0] for others, _ in apart):  # of layers that are tied to one before
                apart.append((parameters, share))
    else:
        apart = [([core for layer in weights_once(model).values() for core in layer.tensors()], 0.0)]
    seen = {parameter for parameters, _ in apart for parameter in parameters}
    others = [parameter for parameter in model.parameters() if parameter not in seen]
    return [
        {"params": parameters, "weight_decay": weight_decay * share} for parameters, share in [(others, 1.0), *apart]
    ]


def frobenius_penalty(model: nn.Module, weight_decay: float) -> Tensor:
    """``weight_decay / 2`` times the sum of ||W||^2 over the factorised layers, W never formed.

    Its gradient with respect to W is what weight decay adds to that of a dense layer (Khodak et al. 2021, section 3).
    """
    layers = weights_once(model).values()
    norms = [squared_norm(layer.graph, layer.tensors()) for layer in layers]
    return torch.stack(norms).sum() * (weight_decay / 2)
