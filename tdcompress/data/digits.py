"""The digits that come with scikit-learn."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

import torch

from ..config.schema import DatasetConfig
from ..tensor.errors import ConfigError
from .arrays import Arrays, resized
from .image_folder import UNREADABLE


def digits(config: DatasetConfig, size: int) -> Arrays:
    """The 1,797 grey UCI digits that come with scikit-learn; every fifth image of a class is for the test (364 in all).

    ``size``: the side in pixels that the 8x8 originals are brought to unless ``config.image_size`` says another. Raises
    ``ConfigError`` where scikit-learn or its file is missing or damaged.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ConfigError("dataset=digits needs scikit-learn (pip install scikit-learn)")
    # Read where scikit-learn keeps it: importing the package takes longer than the first epoch.
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt") as file:
            table = torch.tensor([[int(float(value)) for value in row] for row in csv.reader(file)])
    except UNREADABLE as error:
        raise ConfigError(f"{path} cannot be read ({error}): install scikit-learn anew") from None
    images = (table[:, :64].reshape(-1, 8, 8, 1) * 255 / 16).round().byte()
    images, labels = resized(images, config.image_size or size), table[:, 64]
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        test[(labels == digit).nonzero()[::5]] = True
    return Arrays(images[~test], labels[~test], images[test], labels[test], 10)
