"""What convolutions and matrix products compute in: float32, or bfloat16 where the device has instructions for it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensor.errors import ConfigError


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself: CUDA from compute capability 8, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def effective_precision(name: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` is bf16 where it is native.

    Raises ConfigError for bf16 where it is not: emulated, it is slower than float32 and less exact.
    """
    native = native_bf16(device)
    if name == "bf16" and not native:
        raise ConfigError(f"precision=bf16: this {device.type.upper()} has no bf16 arithmetic; use precision=fp32")
    if name == "auto":
        return "bf16" if native else "fp32"
    return name


def compute_dtype(precision: str) -> torch.dtype:
    """The type of what convolutions and matrix products are given under ``fp32`` or ``bf16``."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in ``precision``; weights, gradients and the optimizer's state stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def computed(core: Tensor) -> torch.dtype:
    """The type that products with this core are computed in here; autocast lets float64 be."""
    device = core.device.type
    cast = not core.is_meta and core.dtype != torch.float64 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if cast else core.dtype
