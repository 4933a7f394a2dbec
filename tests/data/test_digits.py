"""The digits are the published ones."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tdcompress.config.schema import DatasetConfig
from tdcompress.data import sources
from tdcompress.data.sources import load

pytestmark = pytest.mark.usefixtures("one_thread")


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
