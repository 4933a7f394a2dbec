"""Golden losses: what twenty steps of training give, by format and by how the cores begin.

They stand in results/published/golden.csv, of the version that made the runs beside it. Where the code's differ, those
runs are of another version.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tdcompress.cli.shared.jobs import asked, job_of
from tdcompress.config.schema import TrainConfig
from tdcompress.device.files import write_text
from tdcompress.results.identity import fitted, plain
from tdcompress.results.record import read_metrics_text
from tdcompress.results.run import Run
from tdcompress.tensor.formats import BASELINE, FORMATS
from tdcompress.train.run import train

WORDS = (
    *("dataset=digits", "dataset.limit=200", "dataset.image_size=32", "arch=lenet5", "arch.width=0.5"),
    *("optim=cosine", "lr=0.1", "rank=16.6x", "epochs=5", "batch_size=50", "precision=fp32", "device=cpu"),
)
KEYS = [(name, fitted) for name in sorted(FORMATS) for fitted in (False, True) if name != BASELINE or not fitted]
_CLOSE = 2e-2  # relative: other kernels of a CPU make 1.4 % of a ring's fit, which is nearly singular, of others .01 %


@dataclass(frozen=True)
class Golden:
    """The mean training losses of five times four steps; ``fitted``: the first four are at full rank."""

    method: str
    fitted: bool
    losses: tuple[float, ...]

    @property
    def key(self) -> tuple[str, bool]:
        """Which runs these losses are those of."""
        return self.method, self.fitted

    def agrees(self, other: Golden | None) -> bool:
        """Whether the losses are the same, to two per cent."""
        if other is None:
            return False
        pairs = zip(self.losses, other.losses, strict=True)
        return all(abs(a - b) <= _CLOSE * abs(b) for a, b in pairs)


def key_of(config: TrainConfig) -> tuple[str, bool]:
    """Which golden losses a run of ``config`` goes with."""
    return config.method.format, fitted(plain(config))


def measured(method: str, fitted: bool) -> Golden:
    """The losses of the code as it is."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*WORDS, f"method={method}", f"full_rank_epochs={int(fitted)}", f"results_dir={folder}"]
        job = asked(words, job_of)[0].get()
        train(job.config, Run(job.directory), log=lambda line: None)
        epochs = read_metrics_text((job.directory / "metrics.csv").read_text())
    return Golden(method, fitted, tuple(epoch.train_loss for epoch in epochs))


def read(path: Path) -> dict[tuple[str, bool], Golden]:
    """The losses in a file, by their keys; none where there is no file."""
    if not path.is_file():
        return {}
    with path.open() as file:
        rows = [
            Golden(row["method"], row["fitted"] == "True", tuple(map(float, row["losses"].split())))
            for row in csv.DictReader(file)
        ]
    return {row.key: row for row in rows}


def write(path: Path, found: Sequence[Golden]) -> None:
    """Write a file of losses, to four digits, in the order of ``KEYS``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["method", "fitted", "losses"], lineterminator="\n")
    writer.writeheader()
    for row in sorted(found, key=lambda row: KEYS.index(row.key)):
        writer.writerow(asdict(row) | {"losses": " ".join(f"{loss:.4g}" for loss in row.losses)})
    write_text(path, text.getvalue())
