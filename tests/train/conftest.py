"""Fixtures for the tests of training."""

from dataclasses import replace

import pytest

from tdcompress.config.schema import DatasetConfig
from tdcompress.data.sources import DATASETS, load


@pytest.fixture(scope="module")
def small_images(one_thread):
    """Few images, read once."""
    images = load(DatasetConfig("digits", image_size=16, limit=100))
    images = replace(images, test_images=images.test_images[:60], test_labels=images.test_labels[:60])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=lambda config: images))
        yield
