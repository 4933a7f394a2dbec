"""Epoch after epoch, each one on disk before the next begins."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..config.schema import TrainConfig
from ..data.batches import Batches
from ..device.memory import peak_memory
from ..results.identity import plain
from ..results.run import Run
from . import checkpoint
from .interrupt import StopSignals
from .learner import Learner
from .stability import degeneracy
from .watch import Scalars, profiled

Log = Callable[[str], Any]


_TEST_BATCH = {"cpu": 250, "cuda": 1000}  # images; larger ones gain nothing there and cost memory


class Loop:
    """Epoch after epoch, each one on disk before the next begins."""

    def __init__(
        self, config: TrainConfig, run: Run, learner: Learner, summary: dict[str, Any], stop: StopSignals, log: Log
    ) -> None:
        self.config, self.run, self.learner, self.stop, self.log = config, run, learner, stop, log
        self.summary = summary
        self.profiled = False
        watched = config.tensorboard and learner.world.first
        self.scalars = Scalars(run.directory, learner.epoch + 1) if watched else None

    def until_ended(
        self, train_data: Batches, test_data: Batches, counts: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        if self.config.init_from is not None:
            self.summary["initial_test_accuracy"] = self._initial_accuracy(test_data)
        self._write()
        while self.summary["status"] == "running":
            row = self._epoch(train_data, test_data)
            if row is not None:
                smaller = self.learner.close_epoch(row)
                self.log(_line(row, self.config.epochs))
                if smaller:
                    self.summary |= counts()
                    self.log(f"cut to {self.summary['parameters']:,} parameters, {self.summary['macs']:,} MACs")
                if self.scalars is not None:
                    self.scalars.add(row)
            if self._status() != "diverged":  # weights that are not numbers are worth no checkpoint
                state = {"config": plain(self.config), **self.learner.state()}
                if self.learner.world.first:
                    checkpoint.save(self.run.directory, state)
            self._write()
        if self.stop.number is not None:
            raise self.stop.interrupted(f"{self.run.directory}: {outcome(self.summary)}")
        self.log(f"{self.run.directory}: {outcome(self.summary)}")
        return self.summary

    def _initial_accuracy(self, test_data: Batches) -> float | None:
        """On the test set, of the weights that training starts from."""
        if self.learner.epoch or self.learner.batch:
            return (self.run.summary() or {}).get("initial_test_accuracy")
        tested = self._test(test_data)
        if tested is None:
            return None
        self.log(f"before training: test {tested[1]:.2%}")
        return tested[1]

    def _test(self, test_data: Batches) -> tuple[float, float] | None:
        batch_size = max(self.config.batch_size, _TEST_BATCH[self.learner.device.type])
        return self.learner.evaluate(test_data, batch_size, self.stop)

    def _status(self) -> str:
        rows = self.learner.rows
        if rows and not (math.isfinite(rows[-1]["train_loss"]) and math.isfinite(rows[-1]["test_loss"])):
            return "diverged"
        if self.learner.epoch == self.config.epochs:
            return "finished"
        return "running" if self.stop.number is None else "interrupted"

    def _epoch(self, train_data: Batches, test_data: Batches) -> dict[str, Any] | None:
        """The rest of an epoch and its row of metrics.csv, or None if stopped before its end."""
        learner, device = self.learner, self.learner.device
        watched = None
        if self.config.profile and not self.profiled and learner.batch < learner.batches:
            left, trace = learner.batches - learner.batch, self.run.directory / "trace.json"
            watched = partial(profiled, total=left, device=device, trace=trace, log=self.log)
            self.profiled = True
        trained = learner.train(train_data, self.stop, watched)
        if trained is None:
            return None
        began = time.perf_counter()
        tested: tuple[float, float] | None = (math.nan, math.nan)
        if math.isfinite(trained[0]):
            tested = self._test(test_data)
        if tested is None:
            return None
        return {
            "epoch": learner.epoch + 1,
            "lr": learner.lr,
            "train_loss": trained[0],
            "train_accuracy": trained[1],
            "test_loss": tested[0],
            "test_accuracy": tested[1],
            "train_seconds": learner.seconds,
            "test_seconds": time.perf_counter() - began,
            "images_per_second": len(train_data) / learner.seconds,
            "peak_memory_mb": peak_memory(device),
            "degeneracy": degeneracy(learner.model),
        }

    def _write(self) -> None:
        """metrics.csv, then summary.json, of the rows that the checkpoint has."""
        rows = self.learner.rows
        accuracies = [row["test_accuracy"] for row in rows if math.isfinite(row["test_accuracy"])]
        self.summary |= {
            "status": self._status(),
            "epochs_done": len(rows),
            "test_accuracy": accuracies[-1] if len(accuracies) == len(rows) > 0 else None,
            "best_test_accuracy": max(accuracies, default=None),
            "train_seconds_per_epoch": statistics.median(row["train_seconds"] for row in rows) if rows else None,
        }
        if self.learner.world.first:
            if self.summary["status"] == "finished":  # before the summary says so: nobody comes back after that
                checkpoint.forget_previous(self.run.directory)
            self.run.write_metrics(rows)
            self.run.write_summary(self.summary)


def title(summary: dict[str, Any]) -> str:
    method = summary["method"] if summary["rank"] is None else f"{summary['method']} rank {summary['rank']}"
    return (
        f"{summary['arch']} {method} on {summary['dataset']}, seed {summary['seed']}: "
        f"{summary['parameters']:,} parameters ({summary['compression_ratio']:.1f}x fewer than dense), "
        f"{summary['macs']:,} MACs, {summary['device']}, {summary['precision']}"
    )


def _line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}  lr {row['lr']:.3g}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:.2%}  test {row['test_accuracy']:.2%}  "
        f"{row['train_seconds']:.1f} s  {row['images_per_second']:,.0f} images/s"
    )


def outcome(summary: dict[str, Any]) -> str:
    if summary["status"] == "interrupted":
        return f"interrupted; the same command goes on from epoch {summary['epochs_done'] + 1}"
    if summary["status"] == "diverged":
        return f"diverged in epoch {summary['epochs_done']}: the loss is not a number; try a smaller lr"
    return f"finished, test accuracy {summary['test_accuracy']:.2%}"
