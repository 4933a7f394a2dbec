"""A training step of a whole network on random images: forward, loss, backward, fused SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..archs import build
from ..compression import compress, plans, use_plans
from ..config import ArchConfig, ConfigError, DatasetConfig
from ..precision import autocast
from ..report import layer_report
from ..sources import shape
from ..tuning import tunable, tune
from .hand import hand_network
from .machine import rates


@dataclass(frozen=True)
class Network:
    """What is trained, as plain values from which another process builds the same."""

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


class TrainingStep:
    """Calling it trains for one step. ``parameters`` and ``macs`` (per image) count the whole network.

    ``paths``: those to contract along, as another step of an equal network has them; planned anew by default. Raises
    ``ConfigError`` where ``by_hand`` is asked of a network that has no hand-written chain.
    """

    def __init__(self, network: Network, device: torch.device, paths: dict[str, Any] | None = None) -> None:
        channels, size, classes = shape(DatasetConfig(name=network.dataset))
        self.network, self.device = network, device
        model = build(ArchConfig(name=network.arch, width=network.width), channels, classes, size).to(device)
        image = (channels, size, size)
        compress(
            model,
            network.method,
            network.rank,
            image,
            batch_size=network.batch_size,
            rates=rates(device, network.precision),
            plan=network.plan,
            checkpoint=network.checkpoint,
            init="orthogonal",  # no time depends on the values of the cores, and these are made at once
        )
        images = torch.randn(network.batch_size, *image, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(classes, (network.batch_size,), device=device)
        model = model.to(memory_format=torch.channels_last)
        if paths is not None:
            use_plans(model, paths)
        elif not network.by_hand and tunable(model):
            tune(model, self.images, autocast(device, network.precision))
        self.paths = plans(model)
        report = layer_report(model, image)
        self.parameters, self.macs = report["parameters"], report["macs"]
        by_hand = hand_network(model) if network.by_hand else model
        if by_hand is None:
            raise ConfigError(f"{network.method} has no hand-written chain of convolutions")
        self.model = by_hand.train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def has_hand_chain(self) -> bool:
        """Whether every factorised layer has one."""
        return hand_network(self.model) is not None

    def __call__(self) -> None:
        with autocast(self.device, self.network.precision):
            outputs = self.model(self.images)
        loss = F.cross_entropy(outputs.float(), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
