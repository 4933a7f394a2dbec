"""Batches against slow per-image loops, and every kind of bad input."""

import pickle
import struct
import subprocess
import sys
import types
import urllib.error
import urllib.request
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from tdcompress.config.schema import DatasetConfig
from tdcompress.data import sources
from tdcompress.data.datasets import DeviceDataset, datasets, statistics
from tdcompress.data.sources import Arrays, load, shape
from tdcompress.tensor.errors import ConfigError

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def random_images(count=23, size=6, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, size, size, channels), generator=generator, dtype=torch.uint8)


def plain_dataset(images, padding=0, flip=False):
    """Pixel values as they are, and the image's number as its label."""
    ones = torch.ones(images.shape[3])
    return DeviceDataset(images, torch.arange(len(images)), CPU, 0 * ones, ones, padding, flip)


def own(monkeypatch, result):
    """A configuration whose user's function gives ``result``."""
    module = types.ModuleType("own_loader")
    module.make = lambda: result
    monkeypatch.setitem(sys.modules, "own_loader", module)
    return DatasetConfig(target={"_target_": "own_loader.make"})


def arrays(**changes):
    images, labels = random_images(8), torch.arange(8) % 2
    parts = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    return Arrays(**{**parts, "classes": 2, **changes})


# Batches


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


# Loading


def test_digits():
    digits = load(DatasetConfig("digits"))
    assert digits.train_images.shape[1:] == digits.test_images.shape[1:] == (28, 28, 1)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_labels.dtype == torch.int64
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    share = digits.test_labels.bincount() / (digits.test_labels.bincount() + digits.train_labels.bincount())
    assert ((share - 0.2).abs() < 0.01).all()
    stored = load(DatasetConfig("digits", image_size=8))
    assert stored.train_images.max() == 255
    assert stored.train_images.min() == 0
    assert set(stored.train_images.unique().tolist()) <= {round(255 * value / 16) for value in range(17)}


def test_digits_are_the_published_ones():
    stored = load(DatasetConfig("digits", image_size=8))
    counts = torch.cat([stored.train_labels, stored.test_labels]).bincount().tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # the UCI repository's table
    first = "0 0 5 13 9 1 0 0  0 0 13 15 10 15 5 0  0 3 15 2 0 11 8 0  0 4 12 0 0 8 8 0"
    found = stored.test_images[0, :4].flatten().double() * 16 / 255
    assert found.round().tolist() == [float(value) for value in first.split()]


def test_digits_import_neither_scikit_learn_nor_torchvision():
    code = (
        "import sys; from tdcompress.data.sources import load; from tdcompress.config.schema import DatasetConfig;"
        "load(DatasetConfig('digits')); assert not {'sklearn', 'torchvision', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(sources.__file__).parents[2])


def test_size_and_limit(monkeypatch):
    whole, few = load(DatasetConfig("digits")), load(DatasetConfig("digits", limit=50, image_size=12))
    assert few.train_images.shape == (50, 12, 12, 1)
    assert len(few.train_labels) == 50
    assert len(few.test_labels) == len(whole.test_labels)
    assert len(few.train_labels.unique()) == 10  # not the first fifty of a sorted set
    assert torch.equal(few.train_labels, load(DatasetConfig("digits", limit=50)).train_labels)
    assert len(load(DatasetConfig("digits", limit=10**6)).train_labels) == len(whole.train_labels)
    config = own(monkeypatch, arrays(train_images=random_images(8, 9), test_images=random_images(8, 9)))
    config.image_size = 5
    resized = load(config)
    assert resized.train_images.shape == resized.test_images.shape == (8, 5, 5, 3)


def test_resizing_keeps_grey_and_is_pillows_bilinear():
    assert (sources.resized(torch.full((2, 9, 9, 3), 77, dtype=torch.uint8), 5) == 77).all()
    image = random_images(1, 12)[0]
    pillow = numpy.array(Image.fromarray(image.numpy()).resize((7, 7), Image.Resampling.BILINEAR))
    difference = sources.resized(image[None], 7)[0].int() - torch.from_numpy(pillow).int()
    assert difference.abs().max() <= 1


def test_datasets_normalises_both_splits_by_the_training_images(monkeypatch):
    test = random_images(4, seed=1) // 2
    config = own(monkeypatch, arrays(test_images=test, test_labels=torch.tensor([0, 1, 0, 1])))
    config.padding, config.flip = 2, True
    train_data, test_data, classes = datasets(config, CPU)
    assert classes == 2
    assert (train_data.in_channels, train_data.image_size) == (3, 6)
    assert len(test_data) == 4
    images = random_images(8).double()
    expected = (test.double() - images.mean((0, 1, 2))) / images.std((0, 1, 2), correction=0)
    batch = next(test_data.epoch(4, 0, 0, False))[0]  # neither cropped nor flipped
    torch.testing.assert_close(batch.permute(0, 2, 3, 1).double(), expected, rtol=0, atol=1e-5)


def test_shape_agrees_with_what_is_loaded(monkeypatch):
    for config in (DatasetConfig("digits"), DatasetConfig("digits", image_size=9), own(monkeypatch, arrays())):
        loaded = load(config)
        assert shape(config) == (loaded.train_images.shape[3], loaded.train_images.shape[1], loaded.classes)
    assert shape(DatasetConfig("cifar100")) == (3, 32, 100)


# Bad values


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", 0), ("image_size", -3), ("limit", 0), ("padding", -1), ("workers", -1)]
)
@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_values_out_of_range(name, key, value):
    for function in (load, shape):
        with pytest.raises(ConfigError, match=rf"dataset\.{key}={value} must be at least"):
            function(DatasetConfig(name, **{key: value}))


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
    "train 6x6, test 7x7.: set dataset.image_size": arrays(test_images=random_images(8, 7)),
    "train 6x5, test 6x5.": arrays(train_images=random_images(8)[:, 1:], test_images=random_images(8)[:, 1:]),
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_own_loader_that_gives_what_cannot_be_used(message, monkeypatch):
    with pytest.raises(ConfigError, match=message):
        load(own(monkeypatch, BAD_ARRAYS[message]))


# A folder of images


def save(path, size=(6, 6), mode="RGB", colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour if colour is not None else (200, 100, 50) if mode == "RGB" else 90).save(path)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            save(tmp_path / split / name / "1.png")
            save(tmp_path / split / name / "2.png", mode="L")
    return tmp_path


def folder_config(root, **settings):
    return DatasetConfig("image_folder", root=str(root), **settings)


def test_image_folder(folder):
    (folder / "train" / ".cache").mkdir()  # neither a class
    (folder / "train" / "cat" / ".DS_Store").write_text("")  # nor an image
    found = load(folder_config(folder))
    assert found.classes == 2
    assert found.train_labels.tolist() == [0, 0, 1, 1]
    assert found.train_images.shape == (4, 6, 6, 3)
    assert found.train_images[0, 0, 0].tolist() == [200, 100, 50]
    assert found.train_images[1, 0, 0].tolist() == [90, 90, 90]  # grey among coloured ones


def test_validation_folder_stands_for_the_test(folder):
    (folder / "test").rename(folder / "val")
    assert len(load(folder_config(folder)).test_labels) == 4


def test_images_of_many_sizes(folder):
    save(folder / "train" / "dog" / "3.jpg", size=(9, 5))
    with pytest.raises(ConfigError, match=r"train are not of one size \(9x5, 6x6\): set dataset.image_size"):
        load(folder_config(folder))
    assert load(folder_config(folder, image_size=4)).train_images.shape == (5, 4, 4, 3)


def test_an_image_of_one_pixel(folder):
    save(folder / "train" / "dog" / "3.png", size=(1, 1), colour=(7, 8, 9))
    with pytest.raises(ConfigError, match=r"train are not of one size \(1x1, 6x6\): set dataset.image_size"):
        load(folder_config(folder))
    found = load(folder_config(folder, image_size=6)).train_images[4]
    assert (found == torch.tensor([7, 8, 9], dtype=torch.uint8)).all()


def test_splits_of_different_size(folder):
    for path in (folder / "test").rglob("*.png"):
        save(path, size=(7, 7))
    with pytest.raises(ConfigError, match=r"train 6x6, test 7x7\): set dataset.image_size"):
        load(folder_config(folder))
    assert load(folder_config(folder, image_size=6)).test_images.shape == (4, 6, 6, 3)


def test_folder_without_root():
    with pytest.raises(ConfigError, match=r"image_folder needs dataset\.root=DIR"):
        load(DatasetConfig("image_folder"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def remove(path):
    for child in sorted(path.rglob("*"), reverse=True):
        child.rmdir() if child.is_dir() else child.unlink()
    path.rmdir()


def save_array(path, dtype):
    Image.fromarray(numpy.arange(36).reshape(6, 6).astype(dtype)).save(path)


FAULTS = {
    "train/dog/3.jpg is not an image": lambda root: (root / "train/dog/3.jpg").write_text("hello"),
    "train/dog/4.png is not an image": lambda root: (root / "train/dog/4.png").write_bytes(b""),
    "test/cat/1.png is not an image": lambda root: truncate(root / "test/cat/1.png"),
    "5.png is not .* more than 8 bits .I": lambda root: save_array(root / "train/dog/5.png", numpy.uint16),
    "6.tiff is not .* more than 8 bits .F": lambda root: save_array(root / "train/dog/6.tiff", numpy.float32),
    "train/dog/more is not an image": lambda root: (root / "train/dog/more").mkdir(),
    "class folder .*train/dog is empty": lambda root: [p.unlink() for p in (root / "train/dog").iterdir()],
    "has no folder train/": lambda root: remove(root / "train"),
    "train/ and test/ or val/ are needed": lambda root: remove(root / "test"),
    "differ: cow": lambda root: save(root / "train/cow/1.png"),
    "differ: dog": lambda root: remove(root / "test/dog"),
    "train has no class folders": lambda root: [remove(root / "train" / name) for name in ("cat", "dog")],
}


@pytest.mark.parametrize("message", FAULTS)
def test_folders_that_cannot_be_used(message, folder):
    FAULTS[message](folder)
    with pytest.raises(ConfigError, match=message) as caught:
        load(folder_config(folder, image_size=6))
    assert "\n" not in str(caught.value)


# Torchvision's


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_idx(path, values):
    array = numpy.asarray(values, dtype=numpy.uint8)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())


def write_mnist(root, name="MNIST"):
    images = random_images(5, 28, 1)[..., 0].numpy()
    for split, count in (("train", 5), ("t10k", 3)):
        write_idx(root / name / "raw" / f"{split}-images-idx3-ubyte", images[:count])
        write_idx(root / name / "raw" / f"{split}-labels-idx1-ubyte", range(count))
    return images


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_that_is_there(tmp_path, offline, name, folder):
    images = write_mnist(tmp_path, folder)
    found = load(DatasetConfig(name, root=str(tmp_path)))
    assert torch.equal(found.train_images[..., 0], torch.from_numpy(images))
    assert found.classes == 10
    assert found.test_images.shape == (3, 28, 28, 1)
    assert found.test_labels.tolist() == [0, 1, 2]


def write_cifar(root, kind, classes):
    """Two images in each file."""
    rows = random_images(2, 32, 3).permute(0, 3, 1, 2).reshape(2, -1).numpy()
    (root / kind.base_folder).mkdir()
    for file, _ in kind.train_list + kind.test_list:
        content = {"data": rows, "labels" if classes == 10 else "fine_labels": [3, classes - 1]}
        (root / kind.base_folder / file).write_bytes(pickle.dumps(content))
    meta = {kind.meta["key"]: [str(k) for k in range(classes)]}
    (root / kind.base_folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_that_is_there(tmp_path, offline, monkeypatch, name, classes):
    import torchvision.datasets.cifar as module

    write_cifar(tmp_path, {"cifar10": module.CIFAR10, "cifar100": module.CIFAR100}[name], classes)
    monkeypatch.setattr(module, "check_integrity", lambda *args: True)
    found = load(DatasetConfig(name, root=str(tmp_path)))
    assert torch.equal(found.train_images[:2], random_images(2, 32, 3))
    assert found.classes == classes
    assert found.test_labels.tolist() == [3, classes - 1]


PLACES = {
    "mnist": ("MNIST/raw", "train-images-idx3-ubyte"),
    "fashion_mnist": ("FashionMNIST/raw", "t10k-labels-idx1-ubyte"),
    "cifar10": ("cifar-10-batches-py", "data_batch_5, test_batch"),
    "cifar100": ("cifar-100-python", "train, test and meta"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_download_that_fails_says_where_files_go_and_leaves_nothing(tmp_path, offline, name):
    place, files = PLACES[name]
    mine = tmp_path / "mine" / "empty"
    mine.mkdir(parents=True)
    (mine.parent / "link").symlink_to("/nonexistent")
    for root in (tmp_path / "not" / "yet", mine.parent, mine):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConfigError, match=r"cannot be downloaded \(<urlopen error no network here>\)") as caught:
            load(DatasetConfig(name, root=str(root)))
        text = str(caught.value)
        assert str(root / place) in text
        assert files in text
        assert "dataset.root" in text
        assert "\n" not in text
        assert sorted(tmp_path.rglob("*")) == before


def garble(path):
    path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))


IDX_FAULTS = {  # the file, what happens to it, and the reason that is told where torchvision notices nothing
    "a header cut short": ("images-idx3", lambda path: path.write_bytes(b"\0\0\x08"), ""),
    "images cut short": ("images-idx3", truncate, ""),
    "garbled images": ("images-idx3", garble, ""),
    "labels for images": ("images-idx3", lambda path: write_idx(path, range(5)), ""),
    "no image": ("images-idx3", lambda path: write_idx(path, numpy.zeros((0, 28, 28))), ""),
    "labels cut short": ("labels-idx1", lambda path: path.write_bytes(path.read_bytes()[:-1]), ""),
    "garbled labels": ("labels-idx1", garble, ""),
    "too few labels": ("labels-idx1", lambda path: write_idx(path, range(4)), "5 train images, but 4 labels"),
    "too many labels": ("labels-idx1", lambda path: write_idx(path, range(6)), "5 train images, but 6 labels"),
    "labels of more classes": ("labels-idx1", lambda path: write_idx(path, range(8, 13)), "must lie between 0 and 9"),
}


@pytest.mark.parametrize("fault", IDX_FAULTS)
def test_damaged_idx_files(tmp_path, offline, fault):
    write_mnist(tmp_path)
    file, damage, reason = IDX_FAULTS[fault]
    damage(tmp_path / f"MNIST/raw/train-{file}-ubyte")
    with pytest.raises(ConfigError, match=rf"MNIST/raw is damaged or unreadable.*{reason}.*: delete ") as caught:
        load(DatasetConfig("mnist", root=str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [truncate, garble, lambda path: path.write_bytes(b"")])
def test_damaged_cifar_files(tmp_path, offline, monkeypatch, damage):
    import torchvision.datasets.cifar as module

    write_cifar(tmp_path, module.CIFAR10, 10)
    damage(tmp_path / module.CIFAR10.base_folder / "data_batch_3")
    for noticed in (True, False):  # by its checksum, or only when it is read
        if not noticed:
            monkeypatch.setattr(module, "check_integrity", lambda *args: True)
        with pytest.raises(ConfigError, match=r"CIFAR10 (is not whole )?in .*cifar-10-batches-py") as caught:
            load(DatasetConfig("cifar10", root=str(tmp_path)))
        assert "\n" not in str(caught.value)


def test_the_default_root_is_the_folder_data(tmp_path, offline, monkeypatch):
    write_mnist(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert len(load(DatasetConfig("mnist")).train_labels) == 5
