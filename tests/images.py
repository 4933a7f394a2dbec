"""Made-up images, and data sets of them."""

from __future__ import annotations

import sys
import types

import torch

from tdcompress.config.schema import DatasetConfig
from tdcompress.data.sources import Arrays


def random_images(count=23, size=6, channels=3, seed=0):
    """uint8 ``(count, size, size, channels)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, size, size, channels), generator=generator, dtype=torch.uint8)


def own(monkeypatch, result):
    """A configuration whose user's function gives ``result``."""
    module = types.ModuleType("own_loader")
    module.make = lambda: result
    monkeypatch.setitem(sys.modules, "own_loader", module)
    return DatasetConfig(target={"_target_": "own_loader.make"})


def arrays(**changes):
    """Eight images of two classes in both splits, but for ``changes``."""
    images, labels = random_images(8), torch.arange(8) % 2
    parts = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    return Arrays(**{**parts, "classes": 2, **changes})
