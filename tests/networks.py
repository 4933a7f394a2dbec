"""A network to compress, and what became of its layers."""

from __future__ import annotations

from collections import OrderedDict

import torch
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
