"""Streamed data are the data: the same batches as from memory, by however many workers, from any start."""

import os
import signal
from dataclasses import replace

import pandas
import pytest
import torch
from PIL import Image

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data import datasets as data
from tdcompress.data.datasets import DeviceDataset, datasets
from tdcompress.data.image_folder import FolderImages
from tdcompress.data.sources import find, load, shape
from tdcompress.data.stream import StreamedDataset, read
from tdcompress.device.memory import free_memory
from tdcompress.results.identity import run_directory
from tdcompress.results.run import Run
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.run import train

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def both(padding=0, flip=False, workers=0, count=23, device=CPU):
    """The same random images on the device and streamed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 6, 6, 3), generator=generator, dtype=torch.uint8)
    mean, std = torch.tensor([100.0, 120.0, 90.0]), torch.tensor([50.0, 60.0, 70.0])
    given = (images, torch.arange(count), device, mean, std, padding, flip)
    return DeviceDataset(*given), StreamedDataset(*given, workers=workers)


def same(left, right):
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) and a.stride() == c.stride()
        for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("padding", "flip"), [(0, False), (2, False), (1, True)])
def test_streamed_is_as_from_memory_from_every_start(padding, flip, workers):
    held, streamed = both(padding, flip, workers)
    for start in (0, 2, 4, 5, 6) if workers < 2 else (1,):
        settings = {"batch_size": 5, "seed": 7, "epoch": 2, "shuffle": True, "start": start}
        assert same(held.epoch(**settings), streamed.epoch(**settings)), start
    assert same(held.epoch(10, 0, 0, shuffle=False), streamed.epoch(10, 0, 0, shuffle=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_leaves_the_global_generator_alone(workers):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(both(1, True, workers)[1].epoch(5, 0, 0, shuffle=True))
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_may_be_left_and_another_begun():
    held, streamed = both(1, True, workers=2)
    next(streamed.epoch(5, 0, 0, shuffle=True))
    first, second = streamed.epoch(5, 0, 0, shuffle=True), streamed.epoch(5, 0, 1, shuffle=True)
    for epoch, batches in ((0, first), (1, second)):
        assert same(held.epoch(5, 0, epoch, shuffle=True), batches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies are made ahead on CUDA only")
def test_batches_copied_ahead_are_the_same():
    held, streamed = both(2, True, workers=2, count=500, device=torch.device("cuda"))
    for (images, labels), (others, more) in zip(
        held.epoch(7, 0, 0, shuffle=True), streamed.epoch(7, 0, 0, shuffle=True), strict=True
    ):
        assert images.device.type == others.device.type == "cuda"
        busy = torch.ones(2000, 2000, device="cuda")
        busy = busy @ busy  # the device lags behind the copies
        assert torch.equal(images, others) and torch.equal(labels, more)


# Folders


@pytest.fixture
def images(tmp_path):
    """Two classes of coloured noise: 14 images of 9x9 for training and 6 for the test, the last one larger."""
    generator = torch.Generator().manual_seed(1)
    for split, count in (("train", 7), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(256, (9, 9, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(noise.numpy()).save(tmp_path / split / name / f"{number}.png")
    Image.new("L", (20, 10), 90).save(tmp_path / "test" / "dog" / "last.png")
    return DatasetConfig("image_folder", root=str(tmp_path), image_size=8, padding=1, flip=True, limit=12)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_streamed_is_the_folder_decoded(images, workers):
    images.validation = 0.25  # two of the six of a class
    decoded = datasets(replace(images, stream=False), CPU, lambda line: None)
    streamed = datasets(replace(images, stream=True, workers=workers), CPU, lambda line: None)
    assert decoded.classes == streamed.classes == 2
    for split, count in (("train", 8), ("validation", 4), ("test", 7)):
        held, read_later = getattr(decoded, split), getattr(streamed, split)
        assert isinstance(held, DeviceDataset) and isinstance(read_later, StreamedDataset)
        assert len(held) == len(read_later) == count
        assert same(held.epoch(5, 3, 1, shuffle=True, start=1), read_later.epoch(5, 3, 1, shuffle=True, start=1))


def test_a_folder_is_not_decoded_before_its_turn(images, monkeypatch):
    decoded = []
    whole = FolderImages.read
    monkeypatch.setattr(FolderImages, "read", lambda self, path: decoded.append(path) or whole(self, path))
    found = find(images)
    assert (shape(images), decoded) == ((3, 8, 2), [])
    assert found.train_images[[3, 1]].shape == (2, 8, 8, 3)
    assert decoded == [found.train_images.files[3], found.train_images.files[1]]
    assert torch.equal(found.train_images[[3, 1]], load(images).train_images[[3, 1]])
    assert shape(DatasetConfig("image_folder", root=images.root, image_size=None)) == (3, 9, 2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("train/cat/3.png", 8, "cat/3.png is not an image"), ("test/dog/last.png", None, "not of one size .9x9, 20x10.")],
)
def test_a_bad_image_is_told_in_one_line_by_any_process(images, tmp_path, workers, name, size, message):
    if size is not None:
        (tmp_path / name).write_text("hello")
    config = replace(images, image_size=size, stream=True, workers=workers, limit=None)

    def everything():
        found = datasets(config, CPU, lambda line: None)
        for split in (found.train, found.test):
            list(split.epoch(4, 0, 0, shuffle=False))

    with pytest.raises(ConfigError, match=message) as error:
        everything()
    assert "\n" not in str(error.value)


def test_reading_follows_the_order_asked_for():
    images = torch.arange(40, dtype=torch.uint8).view(10, 2, 2, 1)
    parts = [torch.tensor([9, 0]), torch.tensor([3]), torch.tensor([3, 4, 5])]
    for workers in (0, 2):
        for got, part in zip(read(images, parts, workers), parts, strict=True):
            assert torch.equal(got, images[part])


# Which of the two


@pytest.mark.parametrize(
    ("stream", "free", "streamed"),
    [(None, 10**9, False), (None, 1, True), (True, 10**9, True), (False, 1, False)],
)
def test_what_does_not_fit_is_streamed_and_the_log_says_so(images, monkeypatch, stream, free, streamed):
    monkeypatch.setattr(data, "free_memory", lambda device: free)
    lines = []
    found = datasets(replace(images, stream=stream, workers=0), CPU, lines.append)
    assert type(found.train) is type(found.test) is (StreamedDataset if streamed else DeviceDataset)
    assert len(lines) == streamed
    assert not streamed or lines[0].endswith("streamed by 0 workers")


def test_padding_counts_and_half_of_the_memory_is_left(images, monkeypatch):
    needed = 12 * 10 * 10 * 3 + 7 * 8 * 8 * 3
    for free, kind in ((2 * needed, DeviceDataset), (2 * needed - 2, StreamedDataset)):
        monkeypatch.setattr(data, "free_memory", lambda device, free=free: free)
        assert type(datasets(replace(images, workers=0), CPU, lambda line: None).train) is kind


def test_free_memory_is_what_the_system_says():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.001 * total < free_memory(CPU) <= total


# A run


def test_a_streamed_run_broken_anywhere_is_the_run_from_memory(images, tmp_path, monkeypatch):
    config = TrainConfig(
        dataset=replace(images, stream=False),
        arch=ArchConfig("lenet", width=0.1),
        method=MethodConfig("tt"),
        optim=OptimConfig({"_target_": "torch.optim.SGD", "momentum": 0.9}),
        rank=2,
        epochs=2,
        batch_size=5,
        device="cpu",
        results_dir=str(tmp_path / "whole"),
    )

    def run_of(config):
        return Run(run_directory(config, config))

    def numbers(config):
        return pandas.read_csv(run_of(config).directory / "metrics.csv").iloc[:, :6]

    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    whole = StreamedDataset.epoch

    def stopping(self, *args, shuffle, **options):
        for batch in whole(self, *args, shuffle=shuffle, **options):
            if shuffle:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(StreamedDataset, "epoch", stopping)
    for step in range(6):
        broken.dataset = replace(images, stream=True, workers=step % 3)
        with pytest.raises(Interrupted):
            train(broken, run_of(broken), print)
    monkeypatch.undo()
    assert train(broken, run_of(broken), print).epochs_done == 2
    assert numbers(broken).equals(numbers(config))
