"""Where a benchmark runs, and what a row has to say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from ..device.machine import choose_device, device_name, set_up
from ..device.precision import compute_dtype, effective_precision
from ..device.rates import device_rates
from ..results.version import version
from ..tensor.contraction.cost import Rates
from ..tensor.formats import FORMATS, find_format
from .options import Options

T = TypeVar("T", bound=Options)


def start(options: T) -> tuple[T, torch.device]:
    """The options with the precision that ``auto`` means, and the device, set up as for training.

    Raises ``ConfigError`` for a device that there is not, or that has no arithmetic in this precision.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    precision = effective_precision(options.precision, device)
    set_up(device)
    return replace(options, precision=precision), device


def rates(device: torch.device, precision: str) -> Rates:
    """What training plans its contractions with."""
    return device_rates(device, compute_dtype(precision))


def columns(options: Options, device: torch.device) -> dict[str, object]:
    """The last columns of every row: what a time is worth nothing without."""
    return {
        "precision": options.precision,
        "repeats": options.repeats,
        "device": device_name(device),
        "torch": torch.__version__,
        "tdcompress": version(),
    }


def methods(options: Options, layout: str | None = None) -> tuple[str, ...]:
    """The formats asked for, or every one that factorises and has the ``layout``.

    Raises ``ConfigError`` for unknown names.
    """
    for name in options.method:
        find_format(name)
    able = (name for name, one in FORMATS.items() if one.factorised and layout in (None, *one.layouts))
    return options.method or tuple(sorted(able))
