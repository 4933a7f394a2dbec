"""The network of a configuration: dense, as training starts from it, or with the weights that a run has come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..compression.swap import compress
from ..config.schema import TrainConfig
from ..data.sources import shape
from ..device.files import RunError
from ..device.memory import is_out_of_memory
from ..device.precision import compute_dtype, effective_precision
from ..device.rates import device_rates
from ..models.build import build
from ..tensor.contraction.cost import Rates
from .weights import Weights, read_weights

Image = tuple[int, int, int]  # channels, height, width
Sizes = tuple[int, int, int]  # channels, height and width of the square images, classes


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
    image, keep, batch_size = (in_channels, image_size, image_size), config.arch.keep, config.batch_size
    compress(model, method, config.rank, image, keep=keep, batch_size=batch_size, rates=rates, cores=cores)
    if weights is not None and cores is not None:
        weights.load_into(model)
    return model


def dense(config: TrainConfig) -> tuple[nn.Module, Image]:
    """The network before it is compressed, on the CPU, and the shape of an image."""
    channels, size, classes = shape(config.dataset)
    return build(config.arch, channels, classes, size), (channels, size, size)


def initial(
    config: TrainConfig, device: torch.device, trained: Weights | None = None, sizes: Sizes | None = None
) -> tuple[nn.Module, Image]:
    """The network as training starts from it, on the CPU, planned for ``device``, and the shape of an image.

    ``trained``: the weights of a run, and then the network as these left it. ``sizes``: of the data, where they are
    known already. The random numbers are those of ``config.seed``.
    """
    channels, size, classes = sizes or shape(config.dataset)
    rates = device_rates(device, compute_dtype(effective_precision(config.precision, device)))
    torch.manual_seed(config.seed)  # behind the rates: measuring them draws random numbers
    return network(config, channels, classes, size, rates, trained), (channels, size, size)


def restored(
    config: TrainConfig, device: torch.device, directory: Path, state: Mapping[str, Any], sizes: Sizes | None = None
) -> tuple[nn.Module, Image]:
    """``initial`` with the weights in ``state``, the checkpoint of the run in ``directory``.

    Raises ``RunError`` where they do not fit. What a network without them raises as well is raised as it is.
    """
    try:
        with fitting(directory):
            return initial(config, device, Weights(str(directory), state["model"], None), sizes)
    except RunError as error:
        misfit = error.with_traceback(None)
    with suppress(RunError):  # weights that the run once started from may be gone by now
        initial(config, device, sizes=sizes)
    raise misfit


@contextmanager
def fitting(directory: Path) -> Iterator[None]:
    """What goes wrong inside is told as the fault of the checkpoint in ``directory``, but for a lack of memory."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(
            f"{directory}: the checkpoint does not fit this network ({reason}); "
            "delete it, or use the version of tdcompress that wrote it"
        ) from None
