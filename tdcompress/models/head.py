"""What the networks have in common: widths, the size of their feature map, and the layers behind it."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from ..config.schema import ArchConfig
from ..layers.linear import FeatureMapLinear
from ..tensor.errors import ConfigError
from .dropout import Dropout


def scaled(channels: int, config: ArchConfig) -> int:
    """``channels`` times ``config.width``, rounded, at least one."""
    return max(1, round(channels * config.width))


def head(
    config: ArchConfig,
    feature_map: tuple[int, int, int],
    hidden: int,
    classes: int,
    relu: str = "relu",
    dropout: float = 0.0,
) -> OrderedDict[str, nn.Module]:
    """The layers behind the flattened feature map, by name, from ``(b, prod(feature_map))`` to ``(b, classes)``.

    ``feature_map``: its channels, height and width. ``config.head="fc"``: two linear layers with ``hidden`` units
    between them, a ReLU named ``relu``, and dropout before the second unless it is 0. ``"trl"``: one tensor regression
    layer.
    """
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
    """``side``, the side of a feature map in pixels. Raises ``ConfigError`` where it is below one.

    ``smallest``: the side of the smallest images that ``arch`` takes, for the message.
    """
    if side < 1:
        raise ConfigError(
            f"arch={arch} leaves nothing of images this small: they need at least {smallest}x{smallest} pixels "
            f"(dataset.image_size={smallest})"
        )
    return side
