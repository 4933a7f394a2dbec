"""A network to compress, and what became of its layers."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.layers.base import Factorised

SHAPE = (3, 8, 8)
DEFAULT = ["body.0.conv", "body.1.0", "hidden"]  # what is swapped unless told otherwise


class Net(nn.Module):
    """Nested modules, batch norm, dropout, a functional call in between, and a layer no forward pass reaches."""

    def __init__(self) -> None:
        super().__init__()
        block = OrderedDict(conv=nn.Conv2d(16, 16, 3, padding=1, bias=False), norm=nn.BatchNorm2d(16), relu=nn.ReLU())
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.ModuleList([nn.Sequential(block), nn.Sequential(nn.Conv2d(16, 32, 3, stride=2), nn.ReLU())])
        self.hidden = nn.Linear(32 * 9, 64)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 10)
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.body:
            x = part(x)
        return self.head(self.drop(torch.relu(self.hidden(x.flatten(1)))))


def swapped(model: nn.Module) -> dict[str, str]:
    """The factorised layers and their formats."""
    return {name: layer.format for name, layer in model.named_modules() if isinstance(layer, Factorised)}


class Conv2dSame(nn.Conv2d):
    """As in timm (``layers.conv2d_same``), which need not be installed."""

    __module__ = "timm.layers.conv2d_same"

    def forward(self, x: Tensor) -> Tensor:
        sizes = zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True)
        more = [max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes]
        x = F.pad(x, [part for total in more for part in (total // 2, total - total // 2)])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
