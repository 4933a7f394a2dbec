"""A folder of images, and everything that can be wrong with one."""

import numpy
import pytest
import torch
from PIL import Image

from tdcompress.config.schema import DatasetConfig
from tdcompress.data.datasets import datasets
from tdcompress.data.sources import find, load
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert found.notes == (f"under {folder} 1 file is skipped as no images of a class: .DS_Store",)
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


@pytest.fixture
def untidy(folder):
    """As people have them: nested, with what systems and people leave beside images."""
    save(folder / "train/dog/poodles/small/3.JPG", colour=(1, 2, 3))
    save(folder / "train/dog/poodles/no_suffix.png", mode="L")
    (folder / "train/dog/poodles/no_suffix.png").rename(folder / "train/dog/poodles/no_suffix")
    for place in ("train/cat/Thumbs.db", "train/dog/poodles/Thumbs.db", "test/dog/notes.txt"):
        (folder / place).write_bytes(b"\xd0\xcf\x11\xe0 of Windows")
    (folder / "train/cat/._1.png").write_bytes(b"of a Mac")
    save(folder / "train/cat/.trash/4.png")
    save(folder / "train/astray.png")
    (folder / "train/cat/again").symlink_to(folder / "train/cat", target_is_directory=True)
    (folder / "test/cat/more").symlink_to(folder / "train/dog/poodles", target_is_directory=True)
    return folder


def test_what_is_no_image_is_skipped_and_counted_and_nested_folders_are_walked(untidy):
    found = load(folder_config(untidy))
    assert [path.name for path in find(folder_config(untidy)).train_images.files] == [
        *("1.png", "2.png"), *("1.png", "2.png", "no_suffix", "3.JPG")
    ]  # fmt: skip
    assert found.train_labels.tolist() == [0, 0, 1, 1, 1, 1] and found.test_labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert (found.train_images[5].float().mean((0, 1)) - torch.tensor([1.0, 2, 3])).abs().max() < 3  # of a JPEG
    names = "Thumbs.db (3), ._1.png, 4.png, astray.png, notes.txt"
    assert found.notes == (f"under {untidy} 7 files are skipped as no images of a class: {names}",)


def test_a_note_is_logged(untidy):
    lines = []
    datasets(folder_config(untidy, image_size=6), torch.device("cpu"), lines.append)
    assert [line for line in lines if "skipped" in line] == [f"data: {load(folder_config(untidy)).notes[0]}"]


def test_broken_images_are_named_and_skipped_where_that_is_asked_for(folder):
    save(folder / "train/dog/3.png", colour=(7, 8, 9))
    truncate(folder / "train/cat/1.png")  # the first, whose size would be all others'
    (folder / "test/dog/9.jpg").write_text("hello")
    with pytest.raises(
        ConfigError, match=r"cat/1.png is not an image .*\(dataset.broken=skip leaves such files out\)$"
    ):
        load(folder_config(folder))
    found = load(folder_config(folder, broken="skip"))
    assert found.train_labels.tolist() == [0, 1, 1, 1] and found.test_labels.tolist() == [0, 0, 1, 1]
    assert found.train_images[3, 0, 0].tolist() == [7, 8, 9]
    (note,) = found.notes
    assert note.startswith(f"under {folder} 2 files are skipped as images that cannot be read: train/cat/1.png (")
    assert note.endswith("), test/dog/9.jpg (cannot identify image file '" + str(folder / "test/dog/9.jpg") + "')")
    (folder / "train/cat/2.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"class folder .*train/cat is empty"):
        load(folder_config(folder, broken="skip"))


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
    "folder .*train/dog is empty: it has no images": lambda root: [p.unlink() for p in (root / "train/dog").iterdir()],
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
