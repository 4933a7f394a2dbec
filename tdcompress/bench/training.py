"""Whole networks on random images, and a training step of them: forward, loss, backward, fused SGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compression.survey.counts import count
from ..compression.survey.plans import plans, tunable, tune, use_plans
from ..compression.swap import compress
from ..config.schema import ArchConfig, DatasetConfig, TrainConfig
from ..data.sources import shape
from ..device.graphs import passes
from ..device.precision import autocast
from ..models.build import build
from ..results.identity import all_dense, arch_name, dataset_name, method_name, typed
from ..tensor.errors import ConfigError
from ..tensor.formats import BASELINE
from ..train import checkpoint, network
from .machine import rates
from .rivals.hand import hand_network


@dataclass(frozen=True)
class Network:
    """What is timed, as plain values from which another process builds the same.

    ``run``: the directory of the run whose network it is, as training left it; see ``of_run``.
    """

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
    run: str | None = None

    def of_run(self, run: str) -> Network:
        """The network that the run in a directory has trained, with all settings of this one's that it has not itself.

        Raises ``RunError`` where there is none.
        """
        config, _ = _kept(run)
        method = config.method
        its = {"method": method_name(method), "rank": config.rank.plain, "layout": method.layout}
        its |= {"plan": method.plan, "checkpoint": method.checkpoint}
        its |= {"arch": arch_name(config), "width": config.arch.width, "dataset": dataset_name(config)}
        made = replace(self, run=run, **its)
        return made.dense if all_dense(vars(method)) else made

    @property
    def dense(self) -> Network:
        """The network that this one is compressed from."""
        return replace(self, method=BASELINE, rank=1, checkpoint=False)

    @property
    def sizes(self) -> network.Sizes:
        """Channels and size of the images, and how many classes they have."""
        return shape(DatasetConfig(name=self.dataset) if self.run is None else _kept(self.run)[0].dataset)

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of an image."""
        channels, size, _ = self.sizes
        return channels, size, size

    def build(self, device: torch.device) -> nn.Module:
        """The network, channels last. Raises ``RunError`` for a run whose checkpoint does not fit it."""
        model = self._made(device) if self.run is None else self._trained(self.run, device)
        return model.to(device).to(memory_format=torch.channels_last)

    def _made(self, device: torch.device) -> nn.Module:
        channels, size, classes = self.sizes
        model = build(ArchConfig(name=self.arch, width=self.width), channels, classes, size).to(device)
        return compress(
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

    def _trained(self, run: str, device: torch.device) -> nn.Module:
        config, state = _kept(run)
        if self.method == BASELINE:
            return network.dense(config)[0]
        method = replace(config.method, plan=self.plan, checkpoint=self.checkpoint)
        config = replace(config, method=method, batch_size=self.batch_size, precision=self.precision)
        return network.restored(config, device, Path(run), state)[0]

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
        self.labels = torch.randint(network.sizes[-1], (network.batch_size,), device=device)
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


@cache
def _kept(run: str) -> tuple[TrainConfig, Mapping[str, Any]]:
    """A run's configuration, and the state of its network."""
    state = checkpoint.of_run(Path(run), lambda line: None)
    return typed(state["config"]), state
