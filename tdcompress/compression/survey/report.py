"""What became of each layer of a compressed model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas
from torch import nn

from ...tensor.errors import ConfigError
from .counts import counted_from
from .trace import kept_trace


@dataclass(frozen=True)
class Report:
    """``counts``: as ``count`` gives them, of the inputs that the model was compressed with; prints as a table."""

    counts: dict[str, Any]

    def __str__(self) -> str:
        rows = [
            {
                "layer": layer["name"],
                "kind": layer["kind"],
                "shape": "x".join(map(str, layer["shape"])),
                "held as": _held(layer),
                "ranks": " ".join(f"{bond}={size}" for bond, size in layer["ranks"].items()),
                "parameters": _change(layer["dense_parameters"], layer["parameters"]),
                "MACs": _change(layer["dense_macs"], layer["macs"]),
            }
            for layer in self.counts["layers"]
        ]
        counts = self.counts
        table = pandas.DataFrame(rows).to_string(index=False, max_colwidth=60)
        return (
            f"{table}\n{_change(counts['dense_parameters'], counts['parameters'])} parameters "
            f"({counts['compression_ratio']:.2f}x), {_change(counts['dense_macs'], counts['macs'])} MACs"
        )


def report(model: nn.Module) -> Report:
    """What became of each layer of a model that ``compress`` returned, at its present ranks.

    Held as cores: their shapes and ranks, and whether the weight is put together for a contraction. Dense: why. Raises
    ``ConfigError`` for a model that was not compressed.
    """
    seen = kept_trace(model)
    if seen is None:
        raise ConfigError(f"this {type(model).__name__} was not compressed; tdcompress.count says what it holds")
    return Report(counted_from(model, seen))


def _held(layer: dict[str, Any]) -> str:
    if not layer["ranks"]:
        return f"dense ({layer['reason']})" if layer["reason"] else "dense"
    cores = " ".join("x".join(map(str, shape)) for shape in layer["cores"].values())
    return f"{layer['format']} {cores}" + ", put together" * (layer["plan"] == "reconstruct")


def _change(before: int, after: int) -> str:
    return f"{before:,} => {after:,}" if before != after else f"{before:,}"
