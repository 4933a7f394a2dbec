"""One training run, from a configuration to a finished directory."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from . import checkpoint
from .adaptive import Shrinkage
from .batches import Batches
from .config import PRECISIONS, ConfigError, TrainConfig, parse_budget, validate
from .data import datasets
from .distributed import World, joined
from .identity import arch_name, dataset_name, identity, method_name, plain
from .interrupt import StopSignals
from .learner import Learner
from .memory import forget_peak, keep_freed_memory, peak_memory
from .network.measure import device_name, device_rates
from .plans import plans, use_plans
from .precision import autocast, compute_dtype, effective_precision
from .pretrained import Weights, network
from .profiler import profiled
from .report import layer_report
from .runs import Run, RunError
from .scalars import Scalars
from .stability import degeneracy
from .tuning import tunable, tune
from .version import version

Log = Callable[[str], Any]
_APART = 1_000_003  # between the random numbers of one process and the next
_TEST_BATCH = {"cpu": 250, "cuda": 1000}  # images; larger ones gain nothing there and cost memory


def train(config: TrainConfig, run: Run, log: Log = print) -> dict[str, Any]:
    """Train the network of ``config`` in ``run``'s directory and return its summary; ``log`` takes lines.

    A run that has ended is not repeated; a broken one goes on from its checkpoint. Several processes that ``torchrun``
    started share each batch, and the first one writes. Raises ConfigError for values that cannot be used (before
    anything is written), RunError for a directory that cannot be or a device that is too small, and Interrupted upon
    SIGINT or SIGTERM, with everything so far on disk.
    """
    with joined() as world:
        return _prepared(config, run, world, log)


def _prepared(config: TrainConfig, run: Run, world: World, log: Log) -> dict[str, Any]:
    device = choose_device(validate(config).device)
    config = replace(config, precision=_precision(config.precision, run, device))
    ended = world.told(run.ended(config))
    if ended is not None:
        log(f"{run.directory}: {_outcome(ended)}; not run again")
        return ended
    effective_precision(config.precision, device)  # refuses what the device cannot do, before any data are read
    if world.first:
        run.refuse_busy()
    try:
        return _train(config, run, device, world, log)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        asked = (str(error).splitlines() or ["of the machine"])[0].split(". GPU")[0]
    # Raised out here, where the error before it is gone: its traceback would keep the network of a sweep's failed run.
    raise RunError(
        f"out of memory on {device_name(device)} ({asked}), peak so far {peak_memory(device):.0f} MB; "
        f"use a smaller batch_size (now {config.batch_size}), rank or arch.width"
    )


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises ConfigError for ``cuda`` where there is none."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: torch finds no CUDA device here; use device=cpu or device=auto")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _precision(name: str, run: Run, device: torch.device) -> str:
    """``auto`` is what the run in the directory began with, whichever device that was, else what suits the device.

    So a run never changes its arithmetic on the way, and one that has ended is found again on every machine.
    """
    if name != "auto":
        return name
    begun = (run.summary() or {}).get("precision")
    return begun if begun in PRECISIONS else effective_precision(name, device)


def _train(config: TrainConfig, run: Run, device: torch.device, world: World, log: Log) -> dict[str, Any]:
    train_data, test_data, classes = datasets(config.dataset, device, log)
    shape = (train_data.in_channels, train_data.image_size, train_data.image_size)
    state = world.told(checkpoint.load(run.directory, log) if world.first else None)
    if state is not None:
        run.refuse_other(config, state.get("config"))
    rates = device_rates(device, compute_dtype(config.precision))
    torch.manual_seed(config.seed)  # behind the rates: measuring them draws random numbers
    with _fitting(run, state):
        trained = Weights(str(run.directory), state["model"], None) if state is not None else None
        model = network(config, train_data.in_channels, classes, train_data.image_size, rates, trained)
    model = model.to(device).to(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions have it by default
    else:
        keep_freed_memory()
    forget_peak(device)
    report = layer_report(model, shape)
    shrinkage = _shrinkage(config, report["dense_parameters"])
    if shrinkage is not None and world.size > 1:
        raise ConfigError(f"rank={config.rank} changes the ranks while training, which one process alone can do")
    learner = Learner(config, model, train_data.batches(config.batch_size), device, world, shrinkage)
    if not world.first:
        torch.manual_seed(config.seed + _APART * world.rank)  # dropout differs between parts of a batch
    with run.locked() if world.first else nullcontext(), StopSignals() as stop:
        ended = world.told(run.ended(config))  # by another process, while this one read the data
        if ended is not None:
            return ended
        if state is not None:
            with _fitting(run, state):
                learner.restore(state)
            log(f"{run.directory}: going on from epoch {learner.epoch + 1}, step {learner.batch + 1}")
        elif tunable(model):
            images, _ = next(train_data.epoch(config.batch_size, config.seed, 0, shuffle=True, world=world))
            tune(model, images, autocast(device, config.precision))
            use_plans(model, world.told(plans(model)))
        summary = _first_summary(config, device) | _counts(layer_report(model, shape))
        summary["processes"] = world.size
        log(_title(summary))
        loop = _Loop(config, run, learner, summary, stop, log)
        return loop.until_ended(train_data, test_data, lambda: _counts(layer_report(model, shape)))


def _shrinkage(config: TrainConfig, dense: int) -> Shrinkage | None:
    budget = parse_budget(str(config.rank))
    if budget is None or not budget.adaptive:
        return None
    own = tuple(pattern for pattern, changes in config.method.layers.items() if "rank" in changes)
    return Shrinkage(int(budget.parameters(dense)), config.epochs, own)


@contextmanager
def _fitting(run: Run, state: dict[str, Any] | None) -> Iterator[None]:
    """What goes wrong inside is the fault of the checkpoint's ``state``, if there is one."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        if state is None or _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(f"{run.directory}: the checkpoint does not fit this network ({reason}); delete it") from None


class _Loop:
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
            raise self.stop.interrupted(f"{self.run.directory}: {_outcome(self.summary)}")
        self.log(f"{self.run.directory}: {_outcome(self.summary)}")
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


_COUNTS = ("parameters", "dense_parameters", "compression_ratio", "macs", "dense_macs", "layers")


def _counts(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in _COUNTS}


def _first_summary(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    return {
        "status": "running",
        "dataset": dataset_name(config),
        "arch": arch_name(config),
        "method": method_name(config.method),
        "rank": identity(plain(config))["rank"],
        "seed": config.seed,
        "epochs_done": 0,
        "epochs": config.epochs,
        "device": device_name(device),
        "precision": config.precision,
        "versions": {
            "torch": torch.__version__,
            "tdcompress": version(),
            "python": platform.python_version(),
        },
        "config": plain(config),
    }


def _title(summary: dict[str, Any]) -> str:
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


def _outcome(summary: dict[str, Any]) -> str:
    if summary["status"] == "interrupted":
        return f"interrupted; the same command goes on from epoch {summary['epochs_done'] + 1}"
    if summary["status"] == "diverged":
        return f"diverged in epoch {summary['epochs_done']}: the loss is not a number; try a smaller lr"
    return f"finished, test accuracy {summary['test_accuracy']:.2%}"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
