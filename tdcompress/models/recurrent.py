"""Images as sequences, and the recurrent networks that read them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from ..config.schema import ArchConfig
from ..tensor.errors import ConfigError
from .head import scaled

RECURRENT: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


def recurrent(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """LSTM or GRU over the rows of an image, or over frames stacked as channels; its last output is classified.

    Raises ``ConfigError`` for a head that needs a feature map, and channels that ``config.frames`` does not divide.
    """
    steps = config.frames or image_size
    if config.frames and in_channels % config.frames:
        raise ConfigError(
            f"arch.frames={config.frames} does not divide the {in_channels} channels of the data: use the data set's "
            "dataset.frames, or arch.frames=null for rows of pixels as time steps"
        )
    hidden = scaled(config.hidden, config)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        steps=Steps(config.frames),
        rnn=RECURRENT[config.name](in_channels * image_size**2 // steps, hidden, batch_first=True),
        last=Last(),
        fc=nn.Linear(hidden, classes),
    )
    return nn.Sequential(layers)


class Steps(nn.Module):
    """Images ``(b, c, y, x)`` as sequences: their rows ``(b, y, c x)``, or the ``frames`` that are stacked as their
    channels, ``(b, frames, c / frames y x)``."""

    def __init__(self, frames: int | None) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, images: Tensor) -> Tensor:
        steps = images.transpose(1, 2) if self.frames is None else images.unflatten(1, (self.frames, -1))
        return steps.flatten(2)


class Last(nn.Module):
    """From what a recurrent layer gives, outputs ``(b, steps, ..)`` and states, to its last output ``(b, ..)``."""

    def forward(self, given: tuple[Tensor, Any]) -> Tensor:
        outputs, _ = given
        return outputs[:, -1]
