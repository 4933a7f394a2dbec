"""Residual networks for small images (He et al. 2016, *Deep Residual Learning for Image Recognition*)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import ArchConfig
from .head import scaled

# Blocks and channels of each stage, and whether a shortcut that changes its shape is a projection.
RESNET: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    "resnet20": ((3, 3, 3), (16, 32, 64), False),  # section 4.2, n = 3, 5, 9
    "resnet32": ((5, 5, 5), (16, 32, 64), False),
    "resnet56": ((9, 9, 9), (16, 32, 64), False),
    "resnet18": ((2, 2, 2, 2), (64, 128, 256, 512), True),  # table 1, behind one convolution of 3x3 without pooling
}


def resnet(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """A residual network: a convolution of 3x3, stages each but the first of which halves the image, mean, ``fc``."""
    blocks, widths, projects = RESNET[config.name]
    channels = scaled(widths[0], config)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
    )
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
        for position in range(1, count + 1):
            wide = scaled(width, config)
            stride = 2 if stage > 1 and position == 1 else 1
            layers[f"block{stage}_{position}"] = Block(channels, wide, stride, projects)
            channels = wide
    layers |= OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
    return nn.Sequential(layers)


class Block(nn.Module):
    """Two convolutions of 3x3 and a shortcut around them.

    Where the shape changes the shortcut is a convolution of 1x1 if it ``projects`` (option B), or else every second
    pixel with channels of zeros around (option A), which has no parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.stride, self.added = stride, out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module | None = None
        if projects and (stride > 1 or self.added):
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                    norm=nn.BatchNorm2d(out_channels),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        change = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.added:
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)
            )
        return F.relu(change + x, inplace=True)
