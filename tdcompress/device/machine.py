"""Which device computes, and its name."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import torch

from ..tensor.errors import ConfigError


def device_name(device: torch.device) -> str:
    """What to say of a device beside a time measured on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return f"{platform.processor() or platform.machine()} CPU"


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises ConfigError for ``cuda`` where there is none."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: torch finds no CUDA device here; use device=cpu or device=auto")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
