"""Which device computes, its name, and how torch is set up for it."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from ..tensor.errors import ConfigError
from .memory import keep_freed_memory


def device_name(device: torch.device) -> str:
    """A GPU's name, or a CPU's and how many threads torch uses: what a time measured on it is said with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


@cache
def _cpu_name() -> str:
    said: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            said.setdefault(key.strip(), value.strip())  # of the first core
    name = said.get("model name", f"{platform.processor() or platform.machine()} CPU")
    if any(letter.isdigit() for letter in name) or not {"cpu family", "model"} <= said.keys():
        return name
    return f"{name} (family {said['cpu family']}, model {said['model']})"  # a cloud says of all of a maker's the same


def choose_device(name: str) -> torch.device:
    """The device that ``cpu``, ``cuda`` or ``auto`` means; ``auto`` is CUDA where there is one.

    Raises ``ConfigError`` for ``cuda`` where there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: torch finds no CUDA device here; use device=cpu or device=auto")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def set_up(device: torch.device) -> None:
    """Let this process compute on ``device`` as fast as it can: what runs and benchmarks have in common.

    CUDA: TF32 for float32 products, as cuDNN's convolutions have it by default, and cuDNN's own choice of algorithms:
    its trials of all of them took seconds for each network and found none that was faster (VGG-16 on an H100). CPU:
    freed memory is kept for the next step.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    else:
        keep_freed_memory()
