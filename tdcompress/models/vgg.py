"""VGG."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from ..config.schema import ArchConfig
from .dropout import Dropout
from .head import head, scaled, side_of

VGG = {  # convolutions per stage; channels 64, 128, 256, 512, 512 (Simonyan and Zisserman 2015, table 1)
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def vgg(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """VGG with batch norm and the reference system's head: dropout .25, fc 128, dropout .25, fc ``classes``."""
    features: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for stage, (count, width) in enumerate(zip(VGG[config.name], (64, 128, 256, 512, 512), strict=True), 1):
        for position in range(1, count + 1):
            name, wide = f"{stage}_{position}", scaled(width, config)
            features[f"conv{name}"] = nn.Conv2d(channels, wide, 3, padding=1, bias=not config.batch_norm)
            if config.batch_norm:
                features[f"norm{name}"] = nn.BatchNorm2d(wide)
            if position == count:
                features[f"pool{stage}"] = nn.MaxPool2d(2)
            features[f"relu{name}"] = nn.ReLU(inplace=True)
            channels = wide
    side = side_of(config.name, image_size // 32, 32)
    layers = head(config, (channels, side, side), scaled(128, config), classes, dropout=0.25)
    classifier = nn.Sequential(OrderedDict(dropout1=Dropout(0.25)) | layers)
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), flatten=nn.Flatten(), classifier=classifier))
