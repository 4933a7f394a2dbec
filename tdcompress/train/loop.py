"""Epoch after epoch, each one on disk before the next begins."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from torch import nn

from ..compression.survey.counts import count
from ..compression.survey.report import report
from ..config.schema import TrainConfig
from ..data.batches import Batches
from ..data.datasets import Splits
from ..device.memory import forget_peak, peak_memory
from ..layers.kinds import factorised
from ..results.identity import plain
from ..results.record import Epoch, Summary, best_epoch
from ..results.run import Run
from . import checkpoint
from .interrupt import StopSignals
from .learner import Learner
from .network import Image
from .stability import degeneracy
from .watch import Scalars, profiled

Log = Callable[[str], Any]
Counts = dict[str, Any]  # of a network: those fields of a summary that say how large it is, and what its layers hold

_TEST_BATCH = {"cpu": 250, "cuda": 1000}  # images; larger ones gain nothing there and cost memory
_UNKNOWN: Counts = {
    **dict.fromkeys(("parameters", "dense_parameters", "compression_ratio", "macs", "dense_macs")),
    "layers": [],
}


class Loop:
    """Goes on with a run to its end.

    ``learner`` is at the step where it goes on, ``summary`` says what will not change; ``image`` is the shape of an
    image; ``factorise`` puts cores in place of the dense weights of a network that began at full rank, None where the
    run ends with its dense epochs; ``planned`` gives layers whose ranks were cut their plans, where these are measured;
    ``tested`` are the counts that the network of the last epoch had when it was
    tested, None where nobody wrote them down.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        learner: Learner,
        summary: Summary,
        image: Image,
        factorise: Callable[[nn.Module], nn.Module] | None,
        planned: Callable[[nn.Module], nn.Module],
        tested: Counts | None,
        stop: StopSignals,
        log: Log,
    ) -> None:
        self.config, self.run, self.learner, self.stop, self.log = config, run, learner, stop, log
        self.summary, self.image, self.factorise, self.planned = summary, image, factorise, planned
        before = run.summary()
        self.ranks = list(before.ranks) if before is not None else []
        self.counts = self._counted()
        self.tested = tested if tested is not None else _UNKNOWN if learner.has_just_shrunk() else self.counts
        self.profiled = False
        self.stopping: int | None = None  # the signal upon which all processes end, whichever of them it has reached
        watched = config.tensorboard and learner.world.first
        self.scalars = Scalars(run.directory, learner.epoch + 1) if watched else None

    def until_ended(self, data: Splits) -> Summary:
        """The summary once the run is finished or has diverged. Raises ``Interrupted`` upon a signal."""
        self.log(title(replace(self.summary, **self.counts)))
        self._tell()
        if self.config.init_from is not None:
            self.summary = replace(self.summary, initial_test_accuracy=self._initial_accuracy(data.test))
        self._write()
        while self.summary.status == "running":
            if self.factorise is not None and self.learner.due:
                self._switch(self.factorise)
            elif (epoch := self._epoch(data)) is not None:
                self._close(epoch)
            if self._status() != "diverged":  # weights that are not numbers are worth no checkpoint
                # Every process has a part in the state, and the first one writes it.
                known = {"config": plain(self.config), "counts": self.tested, "images": self.summary.images}
                state = {**known, **self.learner.state()}
                if self.learner.world.first:
                    checkpoint.save(self.run.directory, state)
            self._write()
        said = f"{self.run.directory}: {outcome(self.summary)}"
        if self.stop.number is not None:
            raise self.stop.interrupted(said)
        self.log(said)
        return self.summary

    def _close(self, epoch: Epoch) -> None:
        """Move on to the next epoch, perhaps with a smaller network."""
        self.tested = self.counts
        shrunk = self.learner.close_epoch(epoch)
        self.log(_line(epoch, self.config.epochs))
        if shrunk:
            self.planned(self.learner.model)
            self.counts = self._counted()
            self.log(f"cut to {self.counts['parameters']:,} parameters, {self.counts['macs']:,} MACs{self._missed()}")
        if self.scalars is not None:
            self.scalars.add(epoch)

    def _missed(self) -> str:
        """What is to be said where the last cut leaves a network of another size than it was to have."""
        learner = self.learner
        missed = learner.shrinkage.missed(learner.model, learner.epoch) if learner.shrinkage is not None else 0.0
        than = f"than rank={self.config.rank} asks for, the nearest that cuts came"
        return f": {abs(missed):.1%} {'more' if missed > 0 else 'less'} {than}" if missed else ""

    def _switch(self, factorise: Callable[[nn.Module], nn.Module]) -> None:
        """Go on with cores. The checkpoint before this one, from which it can be done again, is the dense network's."""
        start = self.learner.start
        assert start is not None
        self.learner.switch(factorise)
        forget_peak(self.learner.device)
        self.counts = self._counted()
        self.log(f"{start.said()}: {self.counts['parameters']:,} parameters, {self.counts['macs']:,} MACs")
        self._tell()

    def _tell(self) -> None:
        """Say what became of each layer, where some hold cores, and how fast those learn."""
        if factorised(self.learner.model):
            self.log(str(report(self.learner.model)))
        if multiples := self.learner.multiples.values():
            self.log(f"optim.core_lr=balanced: cores learn at {min(multiples):g} to {max(multiples):g} times lr")

    def _counted(self) -> Counts:
        counts = count(self.learner.model, self.image)
        self._note(counts["layers"])
        return {key: counts[key] for key in _UNKNOWN}

    def _note(self, layers: list[dict[str, Any]]) -> None:
        """Note the ranks of the next epoch, where they are not those of the epoch before."""
        epoch = self.learner.epoch + 1
        found = {layer["name"]: layer["ranks"] for layer in layers if layer["ranks"]}
        self.ranks = [one for one in self.ranks if one["epoch"] < epoch]
        if found != (self.ranks[-1]["layers"] if self.ranks else {}):
            self.ranks.append({"epoch": epoch, "layers": found})

    def _initial_accuracy(self, test_data: Batches) -> float | None:
        """On the test set, of the weights that training starts from."""
        if self.learner.epoch or self.learner.batch:
            before = self.run.summary()
            return before.initial_test_accuracy if before is not None else None
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
        if rows and not rows[-1].finite:
            return "diverged"
        if self.learner.epoch == self.config.epochs or (self.factorise is None and self.learner.due):
            return "finished"
        return "running" if self.stopping is None else "interrupted"

    def _epoch(self, data: Splits) -> Epoch | None:
        """The rest of an epoch, or None if stopped before its end."""
        learner, device = self.learner, self.learner.device
        watched = None
        if self.config.profile and not self.profiled and learner.batch < learner.batches:
            left, trace = learner.batches - learner.batch, self.run.directory / "trace.json"
            watched = partial(profiled, total=left, device=device, trace=trace, log=self.log)
            self.profiled, learner.seconds = True, math.nan  # which the profiler takes a part of
        trained = learner.train(data.train, self.stop, watched)
        if trained is None:
            return None
        began = time.perf_counter()
        validated: tuple[float, float] | None = (math.nan, math.nan)
        tested = validated
        if math.isfinite(trained[0]):
            if data.validation is not None:
                validated = self._test(data.validation)
            tested = self._test(data.test)
        if validated is None or tested is None:
            return None
        return Epoch(
            epoch=learner.epoch + 1,
            lr=learner.lr,
            train_loss=trained[0],
            train_accuracy=trained[1],
            test_loss=tested[0],
            test_accuracy=tested[1],
            train_seconds=learner.seconds,
            test_seconds=time.perf_counter() - began,
            images_per_second=len(data.train) / learner.seconds,
            peak_memory_mb=peak_memory(device),
            degeneracy=degeneracy(learner.model),
            parameters=self.counts["parameters"],
            macs=self.counts["macs"],
            validation_loss=validated[0],
            validation_accuracy=validated[1],
        )

    def _write(self) -> None:
        """metrics.csv, then summary.json, of the rows that the checkpoint has."""
        self.stopping = self.learner.world.agreed(self.stop.number)
        rows, start = self.learner.rows, self.learner.start
        switch = start.switch if start is not None else None
        alike = rows
        if self.learner.shrinkage is not None or start is not None:
            alike = [row for row in rows if (row.parameters, row.macs) == (rows[-1].parameters, rows[-1].macs)]
        since = self.summary.device_since
        timed = [row.train_seconds for row in alike if row.epoch >= since and math.isfinite(row.train_seconds)]
        last = rows[-1].test_accuracy if rows else math.nan
        accuracies = [row.test_accuracy for row in alike if math.isfinite(row.test_accuracy)]
        best = best_epoch(rows)
        self.summary = replace(
            self.summary,
            **self.tested,
            status=self._status(),
            epochs_done=len(rows),
            test_accuracy=last if math.isfinite(last) else None,
            best_epoch=best.epoch if best is not None else None,
            best_validation_accuracy=best.validation_accuracy if best is not None else None,
            best_test_accuracy=best.test_accuracy if best is not None else max(accuracies, default=None),
            train_seconds_per_epoch=statistics.median(timed) if timed else None,
            switch=asdict(switch) if switch is not None else {},
            ranks=[one for one in self.ranks if one["epoch"] <= len(rows)],
        )
        if self.learner.world.first:
            if self.summary.status == "finished":  # before the summary says so: nobody comes back after that
                checkpoint.forget_previous(self.run.directory)
            self.run.write_metrics(rows)
            self.run.write_summary(self.summary)


def title(summary: Summary) -> str:
    """What is trained on what, in a line."""
    method = summary.method if summary.rank is None else f"{summary.method} rank {summary.rank}"
    return (
        f"{summary.arch} {method} on {summary.dataset}, seed {summary.seed}: "
        f"{summary.parameters:,} parameters ({summary.compression_ratio:.1f}x fewer than dense), "
        f"{summary.macs:,} MACs, {summary.device}, {summary.precision}"
    )


def outcome(summary: Summary) -> str:
    """How a run ended, in a line."""
    if summary.status == "interrupted":
        return f"interrupted; the same command goes on from epoch {summary.epochs_done + 1}"
    if summary.status == "diverged":
        return f"diverged in epoch {summary.epochs_done}: the loss is not a number; try a smaller lr"
    if summary.test_accuracy is None:
        return "finished"
    said = f"finished, test accuracy {summary.test_accuracy:.2%}"
    if summary.best_epoch is not None:
        said += f" ({summary.best_test_accuracy:.2%} after epoch {summary.best_epoch}, the best by validation)"
    return said


def _line(row: Epoch, epochs: int) -> str:
    seconds, images = row.train_seconds, row.images_per_second
    speed = f"{seconds:.1f} s  {images:,.0f} images/s" if math.isfinite(seconds) else "profiled"
    validation = f"validation {row.validation_accuracy:.2%}  " if row.validated else ""
    return (
        f"epoch {row.epoch:{len(str(epochs))}}/{epochs}  lr {row.lr:.3g}  loss {row.train_loss:.4f}  "
        f"train {row.train_accuracy:.2%}  {validation}test {row.test_accuracy:.2%}  "
        f"{speed}"
    )
