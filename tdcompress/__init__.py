"""Train networks from scratch with their weights in a tensor format, and compare the formats at equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "compress", "fold"]

if TYPE_CHECKING:
    from .compression import compress
    from .folding import fold


def __getattr__(name: str) -> Any:
    """Import ``compress`` and ``fold`` (and with them torch) only when they are asked for."""
    modules = {"compress": ".compression", "fold": ".folding"}
    if name in modules:
        import importlib

        return getattr(importlib.import_module(modules[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
