"""What a configuration gives, and every kind of bad value."""

import numpy
import pytest
import torch
from images import arrays, own, random_images
from PIL import Image

from tdcompress.config.schema import DatasetConfig
from tdcompress.data.arrays import resized
from tdcompress.data.sources import load, shape
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_size_and_limit(monkeypatch):
    whole, few = load(DatasetConfig("digits")), load(DatasetConfig("digits", limit=50, image_size=12))
    assert few.train_images.shape == (50, 12, 12, 1)
    assert len(few.train_labels) == 50
    assert len(few.test_labels) == len(whole.test_labels)
    assert len(few.train_labels.unique()) == 10  # not the first fifty of a sorted set
    assert torch.equal(few.train_labels, load(DatasetConfig("digits", limit=50)).train_labels)
    count = len(whole.train_labels)
    assert len(load(DatasetConfig("digits", limit=count)).train_labels) == count
    with pytest.raises(ConfigError, match=f"limit={count + 1} is more than the {count:,} training images that there"):
        load(DatasetConfig("digits", limit=count + 1))
    config = own(monkeypatch, arrays(train_images=random_images(8, 9), test_images=random_images(8, 9)))
    config.image_size = 5
    found = load(config)
    assert found.train_images.shape == found.test_images.shape == (8, 5, 5, 3)


def test_resizing_keeps_grey_and_is_pillows_bilinear():
    assert (resized(torch.full((2, 9, 9, 3), 77, dtype=torch.uint8), 5) == 77).all()
    image = random_images(1, 12)[0]
    pillow = numpy.array(Image.fromarray(image.numpy()).resize((7, 7), Image.Resampling.BILINEAR))
    difference = resized(image[None], 7)[0].int() - torch.from_numpy(pillow).int()
    assert difference.abs().max() <= 1


def test_shape_agrees_with_what_is_loaded(monkeypatch):
    for config in (DatasetConfig("digits"), DatasetConfig("digits", image_size=9), own(monkeypatch, arrays())):
        loaded = load(config)
        assert shape(config) == (loaded.train_images.shape[3], loaded.train_images.shape[1], loaded.classes)
    assert shape(DatasetConfig("cifar100")) == (3, 32, 100)


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", 0), ("image_size", -3), ("limit", 0), ("padding", -1), ("workers", -1)]
)
@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_values_out_of_range(name, key, value):
    for function in (load, shape):
        with pytest.raises(ConfigError, match=rf"dataset\.{key}={value} must be at least"):
            function(DatasetConfig(name, **{key: value}))


@pytest.mark.parametrize("value", [-0.1, 0.51, 1, float("nan")])
def test_a_share_to_validate_on_out_of_range(value):
    for function in (load, shape):
        with pytest.raises(ConfigError, match=rf"dataset\.validation={value} must lie between 0 and 0\.5"):
            function(DatasetConfig("digits", validation=value))


def test_unknown_name():
    with pytest.raises(ConfigError, match="unknown dataset 'minst', known: cifar10, cifar100, digits, fashion_mnist"):
        load(DatasetConfig("minst"))


@pytest.mark.parametrize("target", ["nowhere.at.all", "tdcompress.data.sources.nothing", "load"])
def test_own_loader_that_is_not_there(target):
    with pytest.raises(ConfigError, match=r"dataset\.target"):
        load(DatasetConfig(target={"_target_": target}))


BAD_ARRAYS = {
    "must return": 3,
    "train_images must be torch.uint8": arrays(train_images=random_images(8).float()),
    "test_labels must be torch.int64": arrays(test_labels=torch.zeros(8)),
    "train_labels must be torch.int64": arrays(train_labels=[0, 1]),
    "with 4 dimensions": arrays(test_images=random_images(8)[0]),
    "got torch.uint8 .0, 6, 6, 3.": arrays(train_images=random_images(0)),
    "8 train images, but 7 labels": arrays(train_labels=torch.zeros(7, dtype=torch.int64)),
    "train labels must lie between 0 and 1": arrays(train_labels=torch.arange(8)),
    "test labels must lie between 0 and 1": arrays(test_labels=torch.arange(8) - 7),
    "same number of channels": arrays(test_images=random_images(8, channels=1)),
    "looks as if channels came first: use images.permute.0, 2, 3, 1.": arrays(
        train_images=random_images(8).permute(0, 3, 1, 2)
    ),
    "train 6x6, test 7x7.: set dataset.image_size": arrays(test_images=random_images(8, 7)),
    "train 6x5, test 6x5.": arrays(train_images=random_images(8)[:, 1:], test_images=random_images(8)[:, 1:]),
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_own_loader_that_gives_what_cannot_be_used(message, monkeypatch):
    with pytest.raises(ConfigError, match=message):
        load(own(monkeypatch, BAD_ARRAYS[message]))
