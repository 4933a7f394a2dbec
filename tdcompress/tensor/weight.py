"""A dense weight as it comes in from outside."""

from __future__ import annotations

from torch import Tensor

from .errors import ConfigError


def checked(weight: Tensor) -> Tensor:
    """``weight`` itself. Raises ``ConfigError`` unless its entries are finite floating-point numbers."""
    if not weight.is_floating_point():
        kind = str(weight.dtype).removeprefix("torch.")
        raise ConfigError(f"its weight is of {kind}, not of floating-point numbers")
    bad = int((~weight.isfinite()).sum()) if not weight.is_meta else 0
    if bad:
        raise ConfigError(f"its weight holds {bad} entries of {weight.numel():,} that are not finite")
    return weight
