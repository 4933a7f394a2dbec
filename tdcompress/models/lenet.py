"""LeNet and LeNet-5."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from ..config.schema import ArchConfig
from .dropout import Dropout
from .head import head, scaled, side_of


def lenet(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """The reference system's LeNet: conv 32 and 64 (3x3), pool, fc 128; on 28x28 images fc1 is 9216-128."""
    side = side_of("lenet", (image_size - 4) // 2, 6)
    c1, c2, hidden = (scaled(channels, config) for channels in (32, 64, 128))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(in_channels, c1, 3),
        relu1=nn.ReLU(inplace=True),
        conv2=nn.Conv2d(c1, c2, 3),
        pool=nn.MaxPool2d(2),
        relu2=nn.ReLU(inplace=True),
        dropout1=Dropout(0.25),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers | head(config, (c2, side, side), hidden, classes, relu="relu3", dropout=0.5))


def lenet5(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """The LeNet-5 of the tensor-ring literature (Wang et al. 2018, table 1); 429,100 weights and biases on 28x28."""
    c1, c2, hidden = (scaled(channels, config) for channels in (20, 50, 320))
    side = side_of("lenet5", (image_size // 2 - 4) // 2, 12)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(in_channels, c1, 5, padding=2),
        pool1=nn.MaxPool2d(2),
        relu1=nn.ReLU(inplace=True),
        conv2=nn.Conv2d(c1, c2, 5),
        pool2=nn.MaxPool2d(2),
        relu2=nn.ReLU(inplace=True),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers | head(config, (c2, side, side), hidden, classes, relu="relu3"))
