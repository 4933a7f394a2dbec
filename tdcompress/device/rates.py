"""The rates of a device, measured once and kept in the user's cache folder."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensor.contraction.calls import fastest
from ..tensor.contraction.cost import Rates, kind
from .clock import Call, seconds
from .machine import device_name

_LONG = 0.2  # seconds of calls of a kind
_IDLE = 0.8  # of that time the least that each thread runs where no other work takes its core
_VECTOR = 64  # bytes in a vector register, or in a row of a tensor core's tile
_CONTRACTIONS = (
    *((1, 64, 3, 16, 2), (1, 128, 1, 16, 2), (4, 16, 3, 16, 2), (256, 1, 3, 16, 2), (64, 1, 3, 8, 3)),
    *((1, 256, 1, 1, 0), (8, 256, 1, 1, 0)),
)
"""One for each kind of call: groups, channels in and out of each; taps and pixels along an axis; axes, none of rows."""
_CONVOLVE: dict[int, tuple[Callable[..., Tensor], torch.memory_format]] = {
    2: (F.conv2d, torch.channels_last),
    3: (F.conv3d, torch.channels_last_3d),
}


def device_rates(device: torch.device, dtype: torch.dtype = torch.float32) -> Rates:
    """Rates of ``device`` in ``dtype``: from ``tdcompress/rates.json`` in the cache folder, or measured (two seconds).

    Those of a CPU are apart for each number of threads, and for a CPU that is busy with other work, which a warning
    says: calls on several threads may then take twenty times as long. The cache folder is ``$XDG_CACHE_HOME``, else
    ``~/.cache``. Delete the file to measure anew.
    """
    return _kept(_key(device, dtype), device, dtype)


def _key(device: torch.device, dtype: torch.dtype) -> str:
    """Under which rates are kept."""
    return f"{device_name(device)}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}"


@cache
def _kept(key: str, device: torch.device, dtype: torch.dtype) -> Rates:
    """What is kept under ``key``, or measured."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "tdcompress" / "rates.json"
    if (rates := _known(path, key)) is not None:
        return rates
    if not _is_idle(device):
        warnings.warn(
            f"{device_name(device)}: other work takes its cores, and layers are planned for it as it is now; with "
            "fewer threads than free cores (OMP_NUM_THREADS), or once it is idle, plans may be faster",
            stacklevel=3,
        )
        key = f"{key}, busy"
        if (rates := _known(path, key)) is not None:
            return rates
    rates = measured(device, dtype)
    with suppress(OSError):  # a folder that cannot be written, or a user without one, only means measuring again
        if not path.is_absolute():
            return rates
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({**_read(path), key: asdict(rates)}, indent=1) + "\n")
        os.replace(part, path)
    return rates


def _known(path: Path, key: str) -> Rates | None:
    """What the file has under ``key``; None too for what another version kept."""
    known = _read(path).get(key)
    return Rates(**known) if isinstance(known, dict) and known.keys() == {f.name for f in fields(Rates)} else None


def _is_idle(device: torch.device) -> bool:
    """Whether the threads of a CPU have a core each: with work for all of them, they then run nearly all the time."""
    if device.type != "cpu":
        return True
    threads = torch.get_num_threads()
    numbers = torch.ones(threads * 2**20).cos_()  # which starts the threads
    began, ran = time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - began) < _LONG:
        numbers.cos_()
    return time.process_time() - ran > _IDLE * threads * passed


def measured(device: torch.device, dtype: torch.dtype) -> Rates:
    """Time a copy, a tiny call, and a call of each kind with its backward pass, each of a size that shows its rate.

    The random numbers of the caller stay what they were.
    """
    # Short for a CPU, which then seldom turns to other work meanwhile, far longer than launching it takes for a GPU.
    batch, length, pieces = (4 * torch.get_num_threads(), 2**22, 16) if device.type == "cpu" else (2048, 2**28, 1)
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with forked, torch.inference_mode(False), torch.enable_grad():  # whatever the caller is in
        few = torch.randn(1, 8, 4, 4, **options, requires_grad=True)
        tiny = torch.randn(8, 8, 1, 1, **options, requires_grad=True)
        call = _fastest(lambda: F.conv2d(few, tiny).sum().backward(), device) / 3  # forward, and backward twice
        # Bytes from one place to another, by turns in so many places that caches do not hold them all.
        places = cycle(zip(*torch.ones(2, pieces, length, dtype=torch.uint8, device=device), strict=True))
        memory = 2 * length / _fastest(lambda: Tensor.copy_(*next(places)), device)
        rates = Rates(memory=memory, call=call, lanes=_VECTOR // dtype.itemsize, width=dtype.itemsize)
        for shape in _CONTRACTIONS:
            rates = _with_kind(rates, shape, batch, options)
    return rates


def _with_kind(rates: Rates, shape: tuple[int, int, int, int, int], batch: int, options: dict[str, Any]) -> Rates:
    """``rates`` with that of the kind of call that ``shape``, one of ``_CONTRACTIONS``, is.

    With it the cost model gives the seconds that the call took, or more: of these at least half count as arithmetic,
    for what a call just wrote it reads faster than a copy does.
    """
    group, channels, taps, side, axes = shape
    if axes:
        images = torch.randn(batch, group * channels, *[side] * axes, **options)
        convolve, layout = _CONVOLVE[axes]
        left = images.contiguous(memory_format=layout).requires_grad_()
        right = fastest(torch.randn(group * channels, channels, *[taps] * axes, **options)).requires_grad_()
        call = partial(convolve, left, right, padding=taps // 2, groups=group)
    else:
        rows = torch.randn(group, 128 * batch // group, channels, **options)
        matrices = torch.randn(group, channels, channels, **options)
        left, right = ((t if group > 1 else t[0]).requires_grad_() for t in (rows, matrices))
        call = partial(torch.matmul if group > 1 else F.linear, left, right)
    gradient = torch.randn_like(call())
    whole = _fastest(lambda: torch.autograd.grad(call(), (left, right), gradient), options["device"])
    sizes = left.numel(), right.numel(), gradient.numel()
    contraction = left.numel() // (group * channels), group, channels, channels, taps**axes
    name = kind(*contraction[1:], axes)
    values: dict[str, Any] = {name: math.inf}
    besides = replace(rates, **values).contraction(*contraction, sizes, axes)
    values[name] = rates.padded_macs(*contraction) / max(whole - besides, whole / 2)
    return replace(rates, **values)


def _fastest(call: Call, device: torch.device) -> float:
    """Seconds of the fastest of as many calls as ``_LONG`` allows: whatever else the machine does only ever adds."""
    call()  # prepares what the others use
    times = [seconds(call, device)]
    while sum(times) < _LONG:
        times.append(seconds(call, device))
    return min(times)


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
