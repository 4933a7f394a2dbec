"""The network of a configuration."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..compression.swap import compress
from ..config.schema import TrainConfig
from ..data.sources import shape
from ..device.precision import compute_dtype, effective_precision
from ..device.rates import device_rates
from ..models.build import build
from ..tensor.contraction.cost import Rates
from .weights import Weights, read_weights


def network(
    config: TrainConfig,
    in_channels: int,
    classes: int,
    image_size: int,
    rates: Rates | None = None,
    trained: Weights | None = None,
) -> nn.Module:
    """The network of ``config``, its layers swapped, for square images of ``image_size`` pixels.

    With the weights that were ``trained`` already, or else those of ``init_from``: dense ones are decomposed as
    ``config.method`` and ``config.rank`` say; cores are taken as they are. Raises ``ConfigError`` where they do not
    fit.
    """
    model = build(config.arch, in_channels, classes, image_size)
    method, cores = config.method, None
    weights = trained or (read_weights(config.init_from) if config.init_from is not None else None)
    if weights is not None and weights.cores:
        weights.refuse_other(config)
        cores = weights.cores
    elif weights is not None:
        weights.load_into(model)
        method = replace(method, init="fit")
    shape, keep, batch_size = (in_channels, image_size, image_size), config.arch.keep, config.batch_size
    compress(model, method, config.rank, shape, keep=keep, batch_size=batch_size, rates=rates, cores=cores)
    if weights is not None and cores is not None:
        weights.load_into(model)
    return model


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
