"""Torchvision's data sets: read where they lie, and what is said of files that are missing or damaged."""

import pickle
import struct
import urllib.error
import urllib.request

import numpy
import pytest
import torch
import torchvision.datasets.cifar as module
from images import random_images

from tdcompress.config.schema import DatasetConfig
from tdcompress.data.sources import load
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


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


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


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
