"""The rates of a device, measured once and kept in the user's cache folder."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..tensor.contraction.cost import Rates
from .clock import Call, seconds
from .machine import device_name

_ROUNDS = 7
_UNCACHED = 2**26  # bytes, more than caches hold
_VECTOR = 64  # bytes in a vector register, or in a row of a tensor core's tile


@cache
def device_rates(device: torch.device, dtype: torch.dtype = torch.float32) -> Rates:
    """Rates of ``device`` in ``dtype``: from ``tdcompress/rates.json`` in the cache folder, or measured (a second).

    The cache folder is ``$XDG_CACHE_HOME``, else ``~/.cache``. Delete the file to measure anew.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdcompress" / "rates.json"
    key = f"{device_name(device)}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}"
    known = _read(path)
    with suppress(KeyError, TypeError):
        return Rates(**known[key])
    rates = measured(device, dtype)
    with suppress(OSError):  # a folder that cannot be written only means measuring again
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({**_read(path), key: asdict(rates)}, indent=1) + "\n")
        os.replace(part, path)
    return rates


def measured(device: torch.device, dtype: torch.dtype) -> Rates:
    """Time a convolution, a matrix product, a copy and a tiny call, each of a size that shows its rate."""
    batch = 64 if device.type == "cpu" else 512
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller is in
        few = torch.randn(1, 8, 4, 4, **options, requires_grad=True)
        tiny = torch.randn(8, 8, 1, 1, **options, requires_grad=True)
        call = _fastest(lambda: F.conv2d(few, tiny).sum().backward(), device) / 3  # forward, and backward twice
    with torch.no_grad():
        images = torch.randn(batch, 64, 16, 16, **options).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(64, 64, 3, 3, **options).contiguous(memory_format=torch.channels_last)
        rows, matrix = torch.randn(batch * 32, 256, **options), torch.randn(256, 256, **options)
        source, target = (torch.ones(_UNCACHED, dtype=torch.uint8, device=device).view(dtype) for _ in range(2))
        macs = batch * 16 * 16 * 64 * 64 * 9
        convolution = macs / (_fastest(lambda: F.conv2d(images, kernel, padding=1), device))
        product = len(rows) * 256 * 256 / (_fastest(lambda: F.linear(rows, matrix), device))
        memory = 2 * _UNCACHED / (_fastest(lambda: target.copy_(source), device))
    width = images.element_size()
    return Rates(convolution, product, memory, call, _VECTOR // width, width)


def _fastest(call: Call, device: torch.device) -> float:
    """Seconds of the fastest of a few calls: whatever else the machine does only ever adds."""
    return min(seconds(call, device) for _ in range(_ROUNDS))


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
