"""Whole networks on random images, and a training step of them: forward, loss, backward, fused SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compression.survey.counts import count
from ..compression.survey.plans import plans, tunable, tune, use_plans
from ..compression.swap import compress
from ..config.schema import ArchConfig, DatasetConfig
from ..data.sources import shape
from ..device.graphs import passes
from ..device.precision import autocast
from ..models.build import build
from ..tensor.errors import ConfigError
from .machine import rates
from .rivals.hand import hand_network


@dataclass(frozen=True)
class Network:
    """What is timed, as plain values from which another process builds the same."""

    arch: str
    width: float
    dataset: str
    batch_size: int
    precision: str
    method: str
    rank: int | str
    plan: str
    by_hand: bool = False
    checkpoint: bool = False
    layout: str | None = None
    cuda_graphs: bool = True
    compile: bool = False

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of an image."""
        channels, size, _ = shape(DatasetConfig(name=self.dataset))
        return channels, size, size

    def build(self, device: torch.device) -> nn.Module:
        """The network, channels last."""
        channels, size, classes = shape(DatasetConfig(name=self.dataset))
        model = build(ArchConfig(name=self.arch, width=self.width), channels, classes, size).to(device)
        compress(
            model,
            self.method,
            self.rank,
            self.image,
            batch_size=self.batch_size,
            rates=rates(device, self.precision),
            plan=self.plan,
            checkpoint=self.checkpoint,
            layout=self.layout,
            init="orthogonal",  # no time depends on the values of the cores, and these are made at once
        )
        return model.to(memory_format=torch.channels_last)

    def images(self, device: torch.device) -> Tensor:
        """A random batch, channels last."""
        images = torch.randn(self.batch_size, *self.image, device=device)
        return images.contiguous(memory_format=torch.channels_last)


class TrainingStep:
    """Calling it trains for one step. ``parameters`` and ``macs`` (per image) count the whole network.

    ``paths``: those to contract along, as another step of an equal network has them; planned anew by default. Raises
    ``ConfigError`` where ``by_hand`` is asked of a network that has no hand-written chain.
    """

    def __init__(self, network: Network, device: torch.device, paths: dict[str, Any] | None = None) -> None:
        self.network, self.device = network, device
        model, self.images = network.build(device), network.images(device)
        classes = shape(DatasetConfig(name=network.dataset))[-1]
        self.labels = torch.randint(classes, (network.batch_size,), device=device)
        if paths is not None:
            use_plans(model, paths)
        elif not network.by_hand and tunable(model):
            tune(model, self.images, autocast(device, network.precision))
        self.paths = plans(model)
        report = count(model, network.image)
        self.parameters, self.macs = report["parameters"], report["macs"]
        by_hand = hand_network(model) if network.by_hand else model
        if by_hand is None:
            raise ConfigError(f"{network.method} has no hand-written chain of convolutions")
        self.model = by_hand.train()
        self.forward = passes(self.model, network.batch_size, device, network.cuda_graphs, network.compile)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def has_hand_chain(self) -> bool:
        """Whether every factorised layer has one."""
        return hand_network(self.model) is not None

    def __call__(self) -> None:
        with autocast(self.device, self.network.precision):
            outputs = self.forward(self.images)
        loss = F.cross_entropy(outputs.float(), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
