"""Images that are held out: of every class alike, by the seed, and never trained on."""

from dataclasses import replace

import pytest
import torch
from images import arrays, own, random_images

from tdcompress.data.datasets import DeviceDataset, datasets
from tdcompress.data.sources import load
from tdcompress.data.validation import held_out
from tdcompress.tensor.errors import ConfigError

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = torch.cat([torch.full((count,), label) for label, count in ((2, 200), (0, 61), (5, 3), (7, 2))])


@pytest.mark.parametrize(("fraction", "counts"), [(0.1, [6, 20, 1, 1]), (0.25, [15, 50, 1, 1]), (0.5, [30, 100, 2, 1])])
def test_every_class_gives_its_share_and_keeps_some(fraction, counts):
    held = held_out(LABELS, fraction, seed=3)
    assert held.dtype == torch.bool and held.shape == LABELS.shape
    assert LABELS[held].unique(return_counts=True)[1].tolist() == counts
    assert len(LABELS[~held].unique()) == 4


def test_the_seed_alone_decides():
    first, again, other = (held_out(LABELS, 0.2, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    held_out(LABELS, 0.2, 1)
    assert torch.equal(torch.rand(3), expected)


def test_a_class_of_one_image_is_refused_in_one_line():
    said = r"validation=0\.1 needs at least two training images of each class, and of class 1, 4, 7 .* there is one"
    with pytest.raises(ConfigError, match=said) as error:
        held_out(torch.tensor([3, 3, 1, 7, 4]), 0.1, 0)
    assert "\n" not in str(error.value)


def test_the_splits_are_of_the_training_images_and_normalised_by_those_that_are_trained_on(monkeypatch):
    images, labels = random_images(40, size=3), torch.arange(40) % 2
    images[:, 0, 0, 0] = torch.arange(40)  # which one it is
    config = own(monkeypatch, arrays(train_images=images, train_labels=labels, test_images=images[:8]))
    config.validation, config.padding, config.flip = 0.25, 1, True
    lines = []
    found = datasets(config, CPU, lines.append, seed=4)
    assert lines == ["data: 10 of 40 training images are held out for validation"]
    assert found.validation.padding == found.test.padding == 0 and found.train.padding == 1
    assert not found.validation.flip and found.train.flip
    held = held_out(labels, 0.25, 4)
    for split, of in ((found.train, ~held), (found.validation, held)):
        assert isinstance(split, DeviceDataset) and torch.equal(split.labels, labels[of])
    assert torch.equal(found.validation.images, images[held])
    mean = images[~held].double().mean((0, 1, 2))
    deviation = images[~held].double().std((0, 1, 2), correction=0)
    batch = next(found.validation.epoch(10, 0, 0, False))[0].permute(0, 2, 3, 1).double()
    torch.testing.assert_close(batch, (images[held].double() - mean) / deviation, rtol=0, atol=1e-5)
    assert len(load(config).train_labels) == 40  # what is held out is still a training image of the data set
    few = datasets(replace(config, limit=12), CPU, lines.append)
    assert len(few.train) + len(few.validation) == 12
