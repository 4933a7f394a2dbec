"""What a run writes: an epoch, a row of metrics.csv, and its summary, summary.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

ENDED = ("finished", "diverged")  # of a summary's status: nothing is left to do


@dataclass(frozen=True)
class Epoch:
    """One epoch. Accuracies are fractions; nan is what is not known, or what a file of another version lacks."""

    epoch: int  # from 1
    lr: float = math.nan
    train_loss: float = math.nan
    train_accuracy: float = math.nan
    test_loss: float = math.nan
    test_accuracy: float = math.nan
    train_seconds: float = math.nan  # not known of an epoch that was profiled
    test_seconds: float = math.nan  # validation included
    images_per_second: float = math.nan
    peak_memory_mb: float = math.nan  # of 2**20 bytes
    degeneracy: float = math.nan
    parameters: float = math.nan  # of the network that was tested, whole numbers
    macs: float = math.nan
    validation_loss: float = math.nan  # of the training images that are held out
    validation_accuracy: float = math.nan

    @staticmethod
    def of(values: Mapping[str, Any]) -> Epoch:
        """The epoch of values by name; other names are left out. Raises ``KeyError`` if the epoch is not said."""
        return Epoch(int(values["epoch"]), **{key: float(values[key]) for key in METRICS[1:] if key in values})

    @property
    def finite(self) -> bool:
        """Whether the losses are numbers, that on the validation images only where there are any."""
        losses = (self.train_loss, self.test_loss, self.validation_loss if self.validated else 0.0)
        return all(map(math.isfinite, losses))

    @property
    def validated(self) -> bool:
        """Whether images were held out."""
        return not math.isnan(self.validation_accuracy)


METRICS = tuple(column.name for column in fields(Epoch))
COUNTS = ("parameters", "macs")
cells = attrgetter(*METRICS)  # of an epoch: its values in this order


def metrics_text(epochs: Iterable[Epoch]) -> str:
    """metrics.csv: the names of the columns, and a row for each epoch."""
    rows = [
        [f"{value:.0f}" if name in COUNTS else str(value) for name, value in zip(METRICS, cells(epoch), strict=True)]
        for epoch in epochs
    ]
    return "".join(",".join(row) + "\n" for row in (METRICS, *rows))


def read_metrics_text(text: str) -> list[Epoch]:
    """The epochs in a metrics.csv of any version. Raises ``ValueError`` for a text that is damaged or no such table."""
    header, *lines = text.split("\n")
    names = header.split(",")
    if "epoch" not in names or not lines or lines.pop() != "":
        raise ValueError("no table of epochs, or one that is cut off")
    places = [names.index(column) if column in names else len(names) for column in METRICS[1:]]
    first, epochs = names.index("epoch"), []
    for line in lines:
        words = [*line.split(","), "nan"]
        if len(words) != len(names) + 1:
            raise ValueError("a row has fewer or more cells than there are columns")
        epochs.append(Epoch(int(words[first]), *[float(words[place]) for place in places]))
    return epochs


def best_epoch(epochs: Sequence[Epoch]) -> Epoch | None:
    """The epoch whose weights are to be used: the most accurate on the validation images, None where there are none.

    Of equals the one of least loss, and then the first. Only networks as large as that of the last epoch are compared.
    """
    found = [
        epoch
        for epoch in epochs
        if epoch.validated and epoch.finite
        if (epoch.parameters, epoch.macs) == (epochs[-1].parameters, epochs[-1].macs)
    ]
    return max(found, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_loss), default=None)


@dataclass(frozen=True)
class Summary:
    """One run as far as it is. Counts are those of the network whose accuracy is stated; None is not known (yet)."""

    status: str = "running"  # finished, diverged, interrupted, running
    dataset: str | None = None
    arch: str | None = None
    method: str | None = None
    rank: str | None = None  # None also where no layer has one
    seed: int | None = None
    epochs_done: int = 0
    epochs: int | None = None
    device: str | None = None
    device_since: int = 1  # the first epoch that this device trained from its beginning
    precision: str | None = None
    processes: int = 1
    versions: dict[str, str] = field(default_factory=dict)  # of torch, tdcompress, python
    parameters: int | None = None
    dense_parameters: int | None = None
    compression_ratio: float | None = None  # dense parameters / parameters
    macs: int | None = None  # per image
    dense_macs: int | None = None
    init_digest: str | None = None  # of the given weights that it starts from
    initial_test_accuracy: float | None = None  # before training, where it starts from given weights
    test_accuracy: float | None = None  # of the last epoch
    best_epoch: int | None = None  # by validation, see ``best_epoch``; exports take its weights
    best_validation_accuracy: float | None = None  # after that epoch
    best_test_accuracy: float | None = None  # after that epoch, or else the highest of those with these counts
    train_seconds_per_epoch: float | None = None  # on this device, median of the epochs of networks with these counts
    ranks: list[dict[str, Any]] = field(default_factory=list)  # each change: from which epoch on, and of which layers
    layers: list[dict[str, Any]] = field(default_factory=list)  # as ``compression.survey.counts.count`` gives them
    images: dict[str, int] = field(default_factory=dict)  # of each split, and the number of classes
    normalisation: dict[str, Any] = field(default_factory=dict)  # mean and std of each channel, of pixels 0..255
    config: dict[str, Any] = field(default_factory=dict)  # as ``identity.plain`` gives it
    switch: dict[str, Any] = field(default_factory=dict)  # as ``train.full_rank.start.Switch`` has it
    exports: list[dict[str, Any]] = field(default_factory=list)  # the file of each kind, the newest last
    other: dict[str, Any] = field(default_factory=dict)  # what a later version says besides

    @staticmethod
    def of(values: Mapping[str, Any]) -> Summary:
        """The summary of JSON values by name; a value that is missing or of another type has its default."""
        found: dict[str, Any] = {
            key: value for key, value in values.items() if key in _TYPES and isinstance(value, _TYPES[key])
        }
        return Summary(**found, other={key: value for key, value in values.items() if key not in _TYPES})

    def values(self) -> dict[str, Any]:
        """JSON values by name, of which ``of`` makes the summary again."""
        values = asdict(self)
        return values | values.pop("other")

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in ENDED


def _types(hint: Any) -> tuple[type, ...]:
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = tuple(get_origin(part) or part for part in parts)
    return (*kinds, int) if float in kinds else kinds


_TYPES = {name: _types(hint) for name, hint in get_type_hints(Summary).items() if name != "other"}


def summary_text(summary: Summary) -> str:
    """summary.json."""
    return json.dumps(summary.values(), indent=1) + "\n"


def read_summary(directory: Path) -> Summary | None:
    """What a run's summary.json says, or None if it is missing or unreadable."""
    try:
        values = json.loads((directory / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return Summary.of(values) if isinstance(values, dict) else None
