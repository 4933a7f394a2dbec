"""What became of each layer of a compressed model."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from ...tensor.errors import ConfigError
from .counts import counted_from
from .inputs import refuse_other, unwrapped
from .trace import kept_trace

_WIDTH = 150  # of a terminal, at least


@dataclass(frozen=True)
class Report:
    """What each layer holds and costs; prints as a table.

    ``counts``: as ``count`` gives them; ``shown``: the input that they are for, in words; ``errors``: relative errors
    of the weights that were fitted, by layer, and of all of them together under the name ``""``.
    """

    counts: Mapping[str, Any]
    shown: str = "an input"
    errors: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join((self._table(), "", *self._totals()))

    def _table(self) -> str:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("layer", "shape", "held as", "cores"):
            table.add_column(title, no_wrap=title == "layer", overflow="fold")
        for title in ("ranks", "parameters", "MACs"):
            table.add_column(title, justify="right", no_wrap=title != "ranks", overflow="fold")
        table.add_column("plan, or why dense", overflow="fold")
        if self.errors:
            table.add_column("error", justify="right")
        for layer in self.counts["layers"]:
            name = layer["name"]
            error = f"{self.errors[name]:.4f}" if name in self.errors else "-"
            table.add_row(
                name,
                "x".join(map(str, layer["shape"])),
                layer["format"] + ", put together" * layer["put_together"],
                " ".join("x".join(map(str, size)) for size in layer["cores"].values()) if layer["ranks"] else "",
                " ".join(map(str, layer["ranks"].values())) or "-",
                _change(layer["dense_parameters"], layer["parameters"]),
                _change(layer["dense_macs"], layer["macs"]),
                layer["plan"] if layer["ranks"] else layer["reason"] or "",
                *([error] if self.errors else []),
            )
        console = Console(file=io.StringIO(), markup=False, highlight=False, emoji=False)
        natural = console.measure(table, options=console.options.update_width(10**6)).maximum
        console.width = max(console.width, _WIDTH) if sys.stdout.isatty() else natural
        with console.capture() as capture:
            console.print(table)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def _totals(self) -> Iterator[str]:
        counts, layers = self.counts, self.counts["layers"]
        yield (
            f"{counts['parameters']:,} parameters, dense {counts['dense_parameters']:,}: "
            f"{times(counts['compression_ratio'], 'smaller', 'larger')}"
        )
        macs, dense = counts["macs"], counts["dense_macs"]
        fewer = f": {times(dense / macs, 'fewer', 'more')}" if macs and dense else ""
        yield f"{macs:,} MACs, dense {dense:,}{fewer}; for {self.shown}"
        for layout in dict.fromkeys(layer["layout"] for layer in layers if layer["layout"].endswith(")")):
            names = [layer["name"] for layer in layers if layer["layout"] == layout]
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            yield f"layout {layout}: {', '.join(names[:4])}{more}"
        if counts["activation_macs"]:
            yield f"{counts['activation_macs']:,} MACs of activations with one another besides"
        if "" in self.errors:
            yield f"relative error of all factorised weights together: {self.errors['']:.4f}"


def report(model: nn.Module) -> Report:
    """What became of each layer of a model that ``compress`` returned, at its present ranks.

    Held as cores: their shapes and ranks, and whether the weight is put together for a contraction. Dense: why. Of the
    inputs that the model was compressed with. Raises ``ConfigError`` for a model that was not compressed, and for one
    whose layers were replaced afterwards.
    """
    refuse_other(model)
    model = unwrapped(model)
    seen = kept_trace(model)
    if seen is None:
        raise ConfigError(f"this {type(model).__name__} was not compressed; tdcompress.count says what it holds")
    changed = seen.changed(model)
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: another layer than when the model was compressed; see tdcompress.count"
        )
    return Report(counted_from(model, seen), seen.shown)


def _change(before: int, after: int) -> str:
    """Before and after, and how many times fewer, where there was anything before."""
    said = f" ({before / after:.1f}x)" if before and after else ""
    return f"{before:,} => {after:,}{said}" if before != after else f"{before:,}"


def times(ratio: float, less: str, more: str) -> str:
    """``2.00x smaller`` of a ratio of 2, ``2.00x larger`` of a half: the words for ``less`` and for ``more``."""
    return f"{ratio:.2f}x {less}" if ratio >= 1 else f"{1 / ratio:.2f}x {more}"
