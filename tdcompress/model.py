"""The network of a configuration."""

from __future__ import annotations

import torch
from torch import nn

from .archs import build
from .config import TrainConfig
from .network.measure import device_rates
from .precision import compute_dtype, effective_precision
from .pretrained import Weights, network
from .sources import shape

Image = tuple[int, int, int]


def dense(config: TrainConfig) -> tuple[nn.Module, Image]:
    """The network before it is compressed, on the CPU, and the shape of an image: channels, height, width."""
    channels, size, classes = shape(config.dataset)
    return build(config.arch, channels, classes, size), (channels, size, size)


def initial(config: TrainConfig, device: torch.device, trained: Weights | None = None) -> tuple[nn.Module, Image]:
    """The network as training starts from it, on the CPU, planned for ``device``, and the shape of an image.

    ``trained``: the weights of a run, and then the network as these left it.
    """
    channels, size, classes = shape(config.dataset)
    rates = device_rates(device, compute_dtype(effective_precision(config.precision, device)))
    torch.manual_seed(config.seed)  # behind the rates: measuring them draws random numbers
    return network(config, channels, classes, size, rates, trained), (channels, size, size)
