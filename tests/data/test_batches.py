"""Batches against slow loops over images."""

import pytest
import torch
from images import random_images
from torch.utils._python_dispatch import TorchDispatchMode

from tdcompress.data.datasets import DeviceDataset, statistics

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def plain_dataset(images, padding=0, flip=False):
    """Pixel values as they are, and the image's number as its label."""
    ones = torch.ones(images.shape[3])
    return DeviceDataset(images, torch.arange(len(images)), CPU, 0 * ones, ones, padding, flip)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_as_by_a_float_computation(channels):
    images = random_images(channels=channels)
    mean, std = statistics(images)
    batch = torch.cat([x for x, _ in DeviceDataset(images, torch.arange(23), CPU, mean, std).epoch(5, 0, 0, False)])
    double = images.permute(0, 3, 1, 2).double()  # as ToTensor and Normalize do, in units of 0..255
    expected = (double - double.mean((0, 2, 3), keepdim=True)) / double.std((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(batch.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (2, True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_float_and_channels_last(padding, flip, channels):
    for images, labels in plain_dataset(random_images(channels=channels), padding, flip).epoch(10, 0, 0, True):
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.shape == (len(labels), channels, 6, 6)
        assert images.is_contiguous(memory_format=torch.channels_last)


def crops(image, padding, flip):
    """Every way to crop and flip an image after padding with black, one pixel at a time."""
    height, width, channels = image.shape
    for top in range(-padding, padding + 1):
        for left in range(-padding, padding + 1):
            crop = torch.zeros(height, width, channels)
            for y in range(height):
                for x in range(width):
                    if 0 <= y + top < height and 0 <= x + left < width:
                        crop[y, x] = image[y + top, x + left].float()
            yield (top, left, False), crop
            if flip:
                yield (top, left, True), torch.stack([crop[:, x] for x in reversed(range(width))], 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "flip"), [(2, True), (1, False), (0, True)])
def test_augmented_images_are_crops_of_their_own_image(padding, flip, channels):
    images = random_images(count=30, size=4, channels=channels)
    dataset, seen = plain_dataset(images, padding, flip), set()
    expected = [{crop.numpy().tobytes(): way for way, crop in crops(image, padding, flip)} for image in images]
    for epoch in range(15):
        for batch, labels in dataset.epoch(7, 0, epoch, True):
            for image, label in zip(batch.permute(0, 2, 3, 1), labels.tolist(), strict=True):
                seen.add(expected[label][image.contiguous().numpy().tobytes()])
    assert len(seen) == (2 * padding + 1) ** 2 * (1 + flip)  # no way is left out


def test_images_that_are_a_part_of_a_larger_tensor():
    every = random_images(30)
    for images, labels in plain_dataset(every[10:], flip=True).epoch(20, 0, 0, False):
        for image, label in zip(images.permute(0, 2, 3, 1), labels, strict=True):
            same = every[10 + label].float()
            assert torch.equal(image, same) or torch.equal(image, same.flip(1))


def everything(dataset, **settings):
    return [(x.clone(), y.clone()) for x, y in dataset.epoch(**{"batch_size": 5, "shuffle": True, **settings})]


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def test_an_epoch_is_a_function_of_seed_and_epoch():
    dataset = plain_dataset(random_images(), padding=1, flip=True)
    first = everything(dataset, seed=1, epoch=2)
    torch.manual_seed(99)  # the global generator has no say
    assert same(first, everything(plain_dataset(random_images(), 1, True), seed=1, epoch=2))
    others = [everything(dataset, seed=s, epoch=e) for s, e in ((1, 3), (2, 2), (2, 1), (3, 0), (0, 3), (2**32 - 1, 2))]
    assert not any(same(first, other) for other in others)


def test_an_epoch_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    everything(plain_dataset(random_images(), 1, True), seed=0, epoch=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (1, True)])
def test_start_skips_batches(padding, flip):
    dataset = plain_dataset(random_images(), padding, flip)
    whole = everything(dataset, seed=3, epoch=1)
    for start in range(len(whole) + 2):
        assert same(whole[start:], everything(dataset, seed=3, epoch=1, start=start))


@pytest.mark.parametrize(("batch_size", "batches", "last"), [(5, 5, 3), (23, 1, 23), (100, 1, 23), (1, 23, 1)])
def test_the_last_batch_is_kept(batch_size, batches, last):
    dataset = plain_dataset(random_images())
    epoch = everything(dataset, batch_size=batch_size, seed=0, epoch=0)
    assert len(epoch) == dataset.batches(batch_size) == batches
    assert len(epoch[-1][1]) == last
    assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == list(range(len(dataset)))


class Operations(TorchDispatchMode):
    """The names of all operations that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device_within_an_epoch():
    batches = plain_dataset(random_images(), padding=1, flip=True).epoch(5, 0, 0, True)
    next(batches)
    with Operations() as seen:
        list(batches)
    # Reading a number, or a result whose size depends on values, waits; so does a copy to another device.
    assert not seen.names & {"_local_scalar_dense", "nonzero", "masked_select", "_to_copy", "_unique2"}
    assert "index_select" in seen.names


def test_shuffling_and_order():
    dataset = plain_dataset(random_images())
    order = torch.cat([labels for _, labels in dataset.epoch(5, 0, 0, shuffle=False)])
    assert order.tolist() == list(range(23))
    assert torch.cat([y for _, y in dataset.epoch(5, 0, 0, shuffle=True)]).tolist() != list(range(23))
