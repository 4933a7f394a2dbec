"""The benchmark of the training loop, and the ordinary loop beside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tdcompress.bench.rivals.ordinary import ImageDataset, OrdinaryLoop, as_usual
from tdcompress.config.schema import DatasetConfig
from tdcompress.data.sources import load

pytestmark = pytest.mark.usefixtures("one_thread")


def test_loop_end_to_end(bench, timed):
    timed("loop", ordinary=4.0)
    code, out, err, rows = bench("loop limit=40 width=0.25 batch_size=20 repeats=1 method=tt rank=4")
    assert (code, err) == (0, "") and "results/bench/loop.csv" in out
    (row,) = rows["loop"]
    assert (row["method"], row["rank"], row["images"]) == ("tt", "4", "40")
    assert [float(row[key]) for key in ("images_per_second", "ordinary_images_per_second", "speedup")] == [40, 10, 4]


def test_the_ordinary_network_is_of_torchs_own_modules():
    class Dropout(nn.Dropout):
        pass

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), Dropout(0.3)), nn.ReLU())
    images = torch.randn(2, 1, 8, 8)
    wanted = model.eval()(images)
    usual = as_usual(model)
    assert [type(layer) for layer in usual[1]] == [nn.ReLU, nn.MaxPool2d, nn.Dropout] and usual[1][2].p == 0.3
    assert torch.equal(usual.eval()(images), wanted)


def test_the_ordinary_loop_learns_what_ours_does():
    config = DatasetConfig(name="digits", limit=500, padding=1, flip=True)
    arrays = load(config)
    plain = ImageDataset(arrays, DatasetConfig())
    mean, std = arrays.train_images.double().mean(), arrays.train_images.double().std(correction=0)
    image, label = plain[7]
    wanted = (arrays.train_images[7, ..., 0].double() - mean) / std
    torch.testing.assert_close(image[0].double(), wanted, rtol=1e-5, atol=1e-5)
    assert label == int(arrays.train_labels[7])
    augmented = ImageDataset(arrays, config)
    assert any(not torch.equal(augmented[7][0], augmented[7][0]) for _ in range(5))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    epoch = OrdinaryLoop(model, plain, 100, torch.device("cpu"))
    before, after = epoch(), [epoch() for _ in range(4)][-1]
    assert after[0] < before[0] and after[1] > max(before[1], 0.8)
