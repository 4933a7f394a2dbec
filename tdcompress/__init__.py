"""Train networks from scratch with their weights in a tensor format, and compare the formats at equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Decomposition", "__version__", "compress", "conv2d", "count", "decompose", "fold", "linear"]

if TYPE_CHECKING:
    from .api import Decomposition, compress, conv2d, count, decompose, fold, linear


def __getattr__(name: str) -> Any:
    """Import the rest (and with it torch) only when it is asked for."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module(".api", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
