"""TensorBoard's event files, for those who watch runs there; metrics.csv is written in any case."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from .config import ConfigError


class Scalars:
    """The columns of metrics.csv as scalars over epochs in ``directory``/tensorboard, from epoch ``first`` on.

    What an earlier process wrote there of that epoch and later ones is hidden. Raises ``ConfigError`` where the package
    is missing.
    """

    def __init__(self, directory: Path, first: int) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("tensorboard=true: the package is missing; pip install 'tdcompress[tensorboard]'")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=first)

    def add(self, row: Mapping[str, float]) -> None:
        """Write one epoch's row, to be seen at once."""
        for column, value in row.items():
            if column != "epoch":
                self.writer.add_scalar(column, value, int(row["epoch"]))
        self.writer.flush()
