"""The columns of numbers that figures are drawn over: their titles, their axes, and what they can be compared by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import pandas
from matplotlib.ticker import EngFormatter, FuncFormatter

from ...tensor.errors import ConfigError
from ..record import METRICS
from ..rows import AGREE, Row


@dataclass(frozen=True)
class Quantity:
    """A column of numbers."""

    column: str
    title: str
    log: bool = False
    percent: bool = False  # a fraction in the table
    written: str | None = None  # a tick; None: 20k, 3M

    @property
    def alike(self) -> tuple[str, ...]:
        """The columns in which runs must agree to be compared in it."""
        return AGREE.get(self.column, ())

    def values(self, column: pandas.Series[Any]) -> pandas.Series[Any]:
        """As drawn."""
        return column.astype(float) * (100 if self.percent else 1)

    @property
    def label(self) -> str:
        """Of its axis."""
        return f"{self.title} (%)" if self.percent else self.title

    @property
    def form(self) -> Any:
        """How its ticks are written."""
        if self.written is None:
            return EngFormatter(sep="")
        return FuncFormatter(lambda value, _: str(self.written).format(value))


_PLAIN = "{:g}"
_SPLITS = (
    ("train", "training"),
    ("validation", "validation"),
    ("best_validation", "best validation"),
    ("test", "test"),
)
_TOLD = (
    Quantity("parameters", "parameters", log=True),
    Quantity("compression_ratio", "compression ratio", log=True, written="{:g}x"),
    Quantity("macs", "MACs per image", log=True),
    Quantity("train_seconds_per_epoch", "training seconds per epoch, final network", log=True, written=_PLAIN),
    Quantity("exported_bytes", "bytes of the exported file", log=True),
    Quantity("exported_ms", "ms for one image, exported", log=True, written=_PLAIN),
    Quantity("exported_ms_64", "ms for 64 images, exported", log=True, written=_PLAIN),
    Quantity("lr", "learning rate", log=True, written=_PLAIN),
    Quantity("train_seconds", "training seconds so far", written=_PLAIN),
    Quantity("test_seconds", "seconds of testing", written=_PLAIN),
    Quantity("images_per_second", "images per second"),
    Quantity("peak_memory_mb", "peak memory (MB)"),
    Quantity("best_validation_accuracy", "best validation accuracy", percent=True, written=_PLAIN),
    Quantity("best_test_accuracy", "best test accuracy", percent=True, written=_PLAIN),
    *(Quantity(f"{key}_accuracy", f"{said} accuracy", percent=True, written=_PLAIN) for key, said in _SPLITS),
)
QUANTITIES = {quantity.column: quantity for quantity in _TOLD}
_HINTS = get_type_hints(Row)
OF_RUNS = tuple(one.name for one in fields(Row) if {int, float} & set(getattr(_HINTS[one.name], "__args__", ())))
OF_EPOCHS = tuple(column for column in METRICS if column not in OF_RUNS)


def quantity(column: str) -> Quantity:
    """The quantity of a ``column`` of numbers, of runs or of epochs. Raises ``ConfigError`` for another one."""
    if column not in (*OF_RUNS, *OF_EPOCHS):
        raise ConfigError(f"'{column}' is no column of numbers, known: {', '.join((*OF_RUNS, *OF_EPOCHS))}")
    return QUANTITIES.get(column, Quantity(column, column.replace("_", " ")))
