"""What the networks' heads and widths have in common."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from ..config.schema import ArchConfig
from ..layers.dropout import Dropout
from ..layers.linear import FeatureMapLinear
from ..tensor.errors import ConfigError


def scaled(channels: int, config: ArchConfig) -> int:
    return max(1, round(channels * config.width))


def head(
    config: ArchConfig,
    feature_map: tuple[int, int, int],
    hidden: int,
    classes: int,
    relu: str = "relu",
    dropout: float = 0.0,
) -> OrderedDict[str, nn.Module]:
    """What follows the flattened feature map: two linear layers, the ReLU between them named ``relu``, or one."""
    if config.head == "trl":
        return OrderedDict(trl=FeatureMapLinear(feature_map, classes))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["fc1"] = nn.Linear(math.prod(feature_map), hidden)
    layers[relu] = nn.ReLU(inplace=True)
    if dropout:
        layers["dropout2"] = Dropout(dropout)
    layers["fc2"] = nn.Linear(hidden, classes)
    return layers


def side_of(arch: str, side: int, smallest: int) -> int:
    """The side of the feature map, if there is one. ``smallest``: of the images that leave one pixel."""
    if side < 1:
        raise ConfigError(
            f"arch={arch} leaves nothing of images this small: they need at least {smallest}x{smallest} pixels "
            f"(dataset.image_size={smallest})"
        )
    return side
