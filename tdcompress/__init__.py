"""Train networks from scratch with their weights in a tensor format, and compare the formats at equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "compress"]

if TYPE_CHECKING:
    from .compression import compress


def __getattr__(name: str) -> Any:
    """Import ``compress`` (and with it torch) only when it is asked for."""
    if name == "compress":
        import importlib

        return importlib.import_module(".compression", __name__).compress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
