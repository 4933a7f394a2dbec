"""A dense weight as it comes in from outside."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import ConfigError


def checked(weight: Tensor) -> Tensor:
    """``weight`` itself. Raises ``ConfigError`` unless its entries are finite floating-point numbers.

    Fits compute in single precision at least, whose range no entry may exceed.
    """
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        kind = str(weight.dtype).removeprefix("torch.")
        raise ConfigError(f"its weight is of {kind}, not of floating-point numbers of 16 bits or more")
    if not weight.numel():
        raise ConfigError(f"its weight {tuple(weight.shape)} has no entries")
    bad = 0 if weight.is_meta else int((~weight.detach().float().isfinite()).sum())
    if bad:
        raise ConfigError(f"its weight holds {bad} entries of {weight.numel():,} that are not finite")
    return weight
