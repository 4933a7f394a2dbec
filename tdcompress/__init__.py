"""Train networks from scratch with their weights in a tensor format, and compare the formats at equal size."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_WHERE = {
    "compress": "compression.swap",
    "conv2d": "compression.single",
    "linear": "compression.single",
    "decompose": "compression.single",
    "count": "compression.survey.counts",
    "report": "compression.survey.report",
    "save": "compression.files.cores",
    "load": "compression.files.cores",
    "fold": "compression.export.fold",
    "from_tensorly": "compression.exchange",
    "hold": "layers.kinds",
    "register": "tensor.formats",
    "switch": "compression.switch",
    "to_tensorly": "compression.exchange",
    "tune": "compression.survey.plans",
    "StableRanks": "compression.stable_ranks",
    "ConfigError": "tensor.errors",
    "RunError": "device.files",
}
__all__ = [
    "ConfigError",
    "RunError",
    "StableRanks",
    "__version__",
    "compress",
    "conv2d",
    "count",
    "decompose",
    "fold",
    "from_tensorly",
    "hold",
]
__all__ += ["linear", "load", "register", "report", "save", "switch", "to_tensorly", "tune"]

if TYPE_CHECKING:
    from .compression.exchange import from_tensorly, to_tensorly
    from .compression.export.fold import fold
    from .compression.files.cores import load, save
    from .compression.single import conv2d, decompose, linear
    from .compression.stable_ranks import StableRanks
    from .compression.survey.counts import count
    from .compression.survey.plans import tune
    from .compression.survey.report import report
    from .compression.swap import compress
    from .compression.switch import switch
    from .device.files import RunError
    from .layers.kinds import hold
    from .tensor.errors import ConfigError
    from .tensor.formats import register


def __getattr__(name: str) -> Any:
    """Import the rest (and with it torch) only when it is asked for."""
    if name in _WHERE:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
