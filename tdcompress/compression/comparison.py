"""A network before and after it was compressed: its size, its time and its accuracy where it is used."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..config.schema import TrainConfig
from ..data.batches import Batches
from ..data.datasets import datasets
from ..device.clock import Pairs, compare, finished
from ..tensor.errors import ConfigError
from .survey.counts import count

Network = Callable[[Tensor], Tensor]
Image = tuple[int, int, int]  # channels, height, width

BATCHES = (1, 64)  # images of a pass that is timed
_ROUNDS = 11
_TESTED = 250  # images of a pass whose answers are counted


@dataclass(frozen=True)
class Side:
    """A network to compare: what it is called, its counts for one image, bytes of its file, and what computes it."""

    name: str
    parameters: int
    macs: int
    bytes: int
    network: Network

    @staticmethod
    def of(name: str, model: nn.Module, image: Image, written: int | None = None, read: Network | None = None) -> Side:
        """The side of a torch ``model``: its file that was ``written`` and ``read``, or else its ``state_dict``."""
        report = count(model, image)
        size = len(state_file(model)) if written is None else written
        return Side(name, report["parameters"], report["macs"], size, read or model)


@dataclass(frozen=True)
class Comparison:
    """Two sides. ``times``: by batch size, in pairs of before and after; ``accuracies``: of each, None if not known."""

    before: Side
    after: Side
    times: dict[int, Pairs]
    accuracies: tuple[float, float] | None


def compared(before: Side, after: Side, image: Image, device: torch.device, test: Batches | None) -> Comparison:
    """Time both sides in turn on ``device``, and let them answer the ``test`` images where there are any."""
    times = {}
    for batch in BATCHES:
        images = torch.randn(batch, *image, generator=torch.Generator().manual_seed(batch), device="cpu").to(device)
        ours, rival = (finished(partial(infer, side.network, images), device) for side in (before, after))
        times[batch] = compare(ours, {"": rival}, _ROUNDS)[""]
    accuracies = None if test is None else (accuracy(before.network, test), accuracy(after.network, test))
    return Comparison(before, after, times, accuracies)


def at_hand(config: TrainConfig, device: torch.device, log: Callable[[str], Any]) -> Batches | None:
    """The test images of a run, on ``device``.

    None where they cannot be read without a download; ``log`` is told why.
    """
    try:
        return datasets(replace(config.dataset, download=False), device, log, config.seed).test
    except ConfigError as error:
        log(f"accuracy is not known: {error}")
        return None


def accuracy(network: Network, data: Batches) -> float:
    """The fraction of the images that ``network`` gives its highest score to the right class."""
    right = 0
    for images, labels in data.epoch(_TESTED, seed=0, epoch=0, shuffle=False):
        right += int((infer(network, images).argmax(1) == labels).sum())
    return right / len(data)


def state_file(model: nn.Module) -> bytes:
    """The file that ``torch.save`` makes of the model's ``state_dict``, each tensor in one piece."""
    file = io.BytesIO()
    torch.save({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return file.getvalue()


def infer(network: Network, images: Tensor) -> Tensor:
    """The network's outputs, without what gradients would need."""
    with torch.inference_mode():
        return network(images)
