"""Before and after: sizes of files, times in pairs, answers to the test images where there are any."""

from __future__ import annotations

import urllib.request

import pytest
import torch
from torch import nn

from tdcompress.compression import comparison
from tdcompress.compression.comparison import Side, accuracy, at_hand, compared, state_file
from tdcompress.config.schema import DatasetConfig, TrainConfig
from tdcompress.data.datasets import DeviceDataset

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def data(labels: list[int]) -> DeviceDataset:
    """Images of one pixel, whose value is the place of the image."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return DeviceDataset(pixels, torch.tensor(labels), CPU, torch.zeros(1), torch.ones(1))


def test_accuracy_counts_every_image_once(monkeypatch):
    monkeypatch.setattr(comparison, "_TESTED", 2)

    def network(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(images.flatten().long() % 3, 3).float()

    assert accuracy(network, data([0, 1, 2, 0, 0])) == 0.8
    assert accuracy(network, data([1, 1, 1])) == 1 / 3


def test_both_sides_are_counted_timed_and_tested(monkeypatch):
    monkeypatch.setattr(comparison, "_ROUNDS", 3)
    small, large = (
        nn.Sequential(nn.Flatten(), nn.Linear(1, 2)),
        nn.Sequential(nn.Flatten(), nn.Linear(1, 3, bias=False)),
    )
    nn.init.constant_(small[1].weight, 1)
    small[1].bias.data = torch.tensor([0.0, 1.0])
    nn.init.constant_(large[1].weight, 0)
    before, after = Side.of("large", large, (1, 1, 1), 7), Side.of("small", small, (1, 1, 1))
    assert (before.parameters, before.macs, before.bytes) == (3, 3, 7)
    assert (after.parameters, after.macs, after.bytes) == (4, 2, len(state_file(small)))
    found = compared(before, after, (1, 1, 1), CPU, data([1, 1, 0]))
    assert found.accuracies == (1 / 3, 2 / 3)
    assert [(batch, len(pairs.ours), len(pairs.rival)) for batch, pairs in found.times.items()] == [
        (1, 3, 3),
        (64, 3, 3),
    ]
    assert compared(before, after, (1, 1, 1), CPU, None).accuracies is None


def test_nothing_is_downloaded_to_compare(tmp_path, monkeypatch):
    asked, told = [], []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: asked.append(args))
    assert at_hand(TrainConfig(dataset=DatasetConfig("cifar10", root=str(tmp_path))), CPU, told.append) is None
    assert not asked and not any(tmp_path.iterdir())
    assert len(told) == 1 and told[0].startswith("accuracy is not known: CIFAR10 is not whole in")
    found = at_hand(TrainConfig(dataset=DatasetConfig("digits", limit=10)), CPU, told.append)
    assert found is not None and len(found) > 100 and len(told) == 1
