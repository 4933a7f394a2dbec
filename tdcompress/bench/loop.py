"""``tdc bench loop``: an epoch of this package's loop against an ordinary PyTorch loop on the same network and data."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from ..config.words import read
from ..data.datasets import datasets
from ..data.sources import load
from ..device.clock import compare, finished
from ..results.record import Epoch
from ..results.terminal import show
from ..tensor.formats import BASELINE
from ..tensor.rank import parse
from ..train.interrupt import StopSignals
from ..train.learner import Learner
from ..train.network import network
from ..train.watch import bar
from .machine import columns, rates, start
from .options import Options
from .rivals.ordinary import ImageDataset, OrdinaryLoop
from .table import spread, write

_COLUMNS = ("dataset", "arch", "method", "rank", "images", "images_per_second", "ordinary_images_per_second", "speedup")
_SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9, "weight_decay": 5e-4}


@dataclass(frozen=True)
class LoopOptions(Options):
    """``limit``: use only so many training images; ``root``: the folder of the data set's files."""

    dataset: str = "digits"
    arch: str = "lenet"
    width: float = 1.0
    method: tuple[str, ...] = (BASELINE,)
    rank: tuple[str, ...] = ("reference",)
    limit: int | None = None
    root: str | None = None
    batch_size: int = 100
    repeats: int = 5


def run(words: Sequence[str]) -> None:
    """Time epochs of both loops in turn, for every method and rank asked for; a row each."""
    options = read(words, LoopOptions)
    options, device = start(options)
    dataset = DatasetConfig(name=options.dataset, limit=options.limit, root=options.root)
    cases = [
        TrainConfig(
            dataset=dataset,
            arch=ArchConfig(name=options.arch, width=options.width),
            method=MethodConfig(format=method),
            optim=OptimConfig(optimizer=_SGD, clip=1.0),
            rank=parse(rank),
            batch_size=options.batch_size,
            precision=options.precision,
        )
        for method in options.method
        for rank in options.rank
    ]
    rows: list[dict[str, Any]] = []
    for config in bar(cases, "loop", 0, len(cases)):
        rows.append({**measure(config, options, device), **columns(options, device)})
        path = write(rows, options.results_dir, "loop")
    show(rows, _COLUMNS, f"an epoch in batches of {options.batch_size}; speedup: ordinary / ours, in pairs")
    print(path)


def measure(config: TrainConfig, options: LoopOptions, device: torch.device) -> dict[str, Any]:
    """Both loops on one network: images per second, and how much faster ours is.

    The ordinary loop has a process of its own, so that nothing that ours sets for its process is a help to it, or a
    hindrance.
    """
    ours = _Ours(config, device)
    spawn = multiprocessing.get_context("spawn")
    theirs = (replace(config, precision="fp32"), device, torch.get_num_threads())
    with ProcessPoolExecutor(1, spawn, _prepare, theirs) as process:
        epoch = {"ordinary": lambda: process.submit(_ordinary_epoch).result()}
        pairs = compare(finished(ours, device), epoch, options.repeats)["ordinary"]
    return {
        "dataset": config.dataset.name,
        "arch": config.arch.name,
        "method": config.method.format,
        "rank": None if config.method.format == BASELINE else config.rank.plain,
        "batch_size": config.batch_size,
        "images": ours.images,
        "seconds": pairs.ours_ms / 1000,
        "ordinary_seconds": pairs.rival_ms / 1000,
        "images_per_second": 1000 * ours.images / pairs.ours_ms,
        "ordinary_images_per_second": 1000 * ours.images / pairs.rival_ms,
        **spread("speedup", pairs.speedups),
    }


class _Ours:
    """Calling it trains for one more epoch."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        data = datasets(config.dataset, device)
        self.data, speed = data.train, rates(device, config.precision)
        model = network(config, self.data.in_channels, data.classes, self.data.image_size, speed)
        model = model.to(device).to(memory_format=torch.channels_last)
        self.learner = Learner(config, model, self.data.batches(config.batch_size), device)
        self.images, self.stop = len(self.data), StopSignals()

    def __call__(self) -> None:
        trained = self.learner.train(self.data, self.stop)
        assert trained is not None  # nobody asks it to stop
        self.learner.close_epoch(Epoch(self.learner.epoch + 1, train_loss=trained[0]))


_process: dict[str, OrdinaryLoop] = {}


def _prepare(config: TrainConfig, device: torch.device, threads: int) -> None:
    torch.set_num_threads(threads)
    arrays = load(config.dataset)
    size, channels = arrays.train_images.shape[2:]
    model = network(config, channels, arrays.classes, size, rates(device, config.precision))
    _process["loop"] = OrdinaryLoop(model, ImageDataset(arrays, config.dataset), config.batch_size, device)


def _ordinary_epoch() -> tuple[float, float]:
    return _process["loop"]()
