"""A vision transformer for small images (Dosovitskiy et al. 2021; its sizes: Touvron et al. 2021, DeiT-S)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config.schema import ArchConfig
from ..tensor.errors import ConfigError

_HEADS, _PER_HEAD, _DEPTH = 6, 64, 12
_PATCHES = 8  # along a side


def vit(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """ViT-S of 8x8 patches. Raises ``ConfigError`` for images that they do not divide."""
    if image_size % _PATCHES:
        next_size = -(-image_size // _PATCHES) * _PATCHES
        raise ConfigError(
            f"arch={config.name} divides images into {_PATCHES}x{_PATCHES} patches, which {image_size} pixels do not "
            f"give (dataset.image_size={next_size})"
        )
    features = _HEADS * max(1, round(_PER_HEAD * config.width))
    return VisionTransformer(in_channels, image_size // _PATCHES, features, classes)


class VisionTransformer(nn.Module):
    """``(b, in_channels, y, x)`` to ``(b, classes)``: patches of ``patch`` x ``patch`` pixels as tokens behind one for
    the class, learned positions, blocks that normalise first."""

    def __init__(self, in_channels: int, patch: int, features: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, features, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, features))
        self.positions = nn.Parameter(torch.empty(1, 1 + _PATCHES**2, features))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(
            nn.TransformerEncoderLayer(
                features, _HEADS, 4 * features, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(_DEPTH)
        ))  # fmt: skip
        self.norm = nn.LayerNorm(features)
        self.fc = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        return self.fc(self.norm(self.blocks(tokens)[:, 0]))
