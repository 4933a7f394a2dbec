"""The network of a configuration."""

from __future__ import annotations

import torch
from torch import nn

from .archs import build
from .compression import compress
from .config import TrainConfig
from .network.measure import device_rates
from .precision import compute_dtype, effective_precision
from .sources import shape

Image = tuple[int, int, int]


def dense(config: TrainConfig) -> tuple[nn.Module, Image]:
    """The network before it is compressed, on the CPU, and the shape of an image: channels, height, width."""
    channels, size, classes = shape(config.dataset)
    return build(config.arch, channels, classes, size), (channels, size, size)


def initial(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Image]:
    """The compressed network, on the CPU, its contractions planned for ``device``, and the shape of an image."""
    model, image = dense(config)
    rates = device_rates(device, compute_dtype(effective_precision(config.precision, device)))
    keep, batch_size = config.arch.keep, config.batch_size
    return compress(model, config.method, config.rank, image, keep=keep, batch_size=batch_size, rates=rates), image
