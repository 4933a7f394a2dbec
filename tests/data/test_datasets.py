"""Both splits of a data set, normalised by the training images."""

import pytest
import torch
from images import arrays, own, random_images

from tdcompress.data.datasets import DeviceDataset, datasets, statistics

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_statistics_over_chunks_and_of_a_constant_channel():
    images = random_images(2100, size=3)
    images[..., 1] = 37
    mean, std = statistics(images)
    double = images.double()
    torch.testing.assert_close(mean.double(), double.mean((0, 1, 2)), rtol=1e-6, atol=0)
    torch.testing.assert_close(std[::2].double(), double.std((0, 1, 2), correction=0)[::2], rtol=1e-6, atol=0)
    batch = next(DeviceDataset(images, torch.zeros(2100), CPU, mean, std).epoch(9, 0, 0, False))[0]
    assert batch[:, 1].abs().max() == 0
    assert std[1] == 1  # a test image that differs there by one must not become a million


def test_datasets_normalises_both_splits_by_the_training_images(monkeypatch):
    test = random_images(4, seed=1) // 2
    config = own(monkeypatch, arrays(test_images=test, test_labels=torch.tensor([0, 1, 0, 1])))
    config.padding, config.flip = 2, True
    found = datasets(config, CPU)
    assert found.classes == 2 and found.validation is None
    assert (found.train.in_channels, found.train.image_size) == (3, 6)
    assert len(found.test) == 4
    images = random_images(8).double()
    expected = (test.double() - images.mean((0, 1, 2))) / images.std((0, 1, 2), correction=0)
    batch = next(found.test.epoch(4, 0, 0, False))[0]  # neither cropped nor flipped
    torch.testing.assert_close(batch.permute(0, 2, 3, 1).double(), expected, rtol=0, atol=1e-5)
