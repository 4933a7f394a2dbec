"""Where a benchmark runs, and what a row has to say of it."""

from __future__ import annotations

import torch

from ..formats import FORMATS, find_format
from ..train import choose_device, device_name
from .options import Options


def start(options: Options) -> torch.device:
    """The device asked for, with torch's threads set. Raises ``ConfigError`` where there is none."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    return device


def columns(options: Options, device: torch.device) -> dict[str, object]:
    """The last columns of every row: what a time is worth nothing without."""
    return {
        "precision": options.precision,
        "repeats": options.repeats,
        "device": device_name(device),
        "torch": torch.__version__,
    }


def methods(options: Options) -> tuple[str, ...]:
    """The formats asked for, or every one that factorises. Raises ``ConfigError`` for unknown names."""
    for name in options.method:
        find_format(name)
    return options.method or tuple(sorted(name for name, format in FORMATS.items() if format.factorised))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in ``precision``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
