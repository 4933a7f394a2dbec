"""Short trainings of few images, and how they are stopped at a step."""

import signal
from dataclasses import replace

import pandas
import pytest

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.datasets import DeviceDataset
from tdcompress.results.identity import run_directory
from tdcompress.results.run import Run
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.run import train

SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9, "weight_decay": 5e-4}
SCHEDULERS = "torch.optim.lr_scheduler"
STEPLR = {"_target_": f"{SCHEDULERS}.StepLR", "step_size": 1, "gamma": 0.5}
COSINE = {"_target_": f"{SCHEDULERS}.CosineAnnealingLR", "T_max": "steps"}
LEFT = {"checkpoint.pt", "lock", "metrics.csv", "summary.json"}  # by a run that has ended
CLOCKS = ["train_seconds", "test_seconds", "images_per_second", "peak_memory_mb"]  # never the same twice


def config_in(results, **changes):
    """Two epochs of four steps."""
    config = TrainConfig(
        dataset=DatasetConfig("digits", image_size=16, limit=100, padding=1),
        arch=ArchConfig("lenet", width=0.25),
        method=MethodConfig("tt"),
        optim=OptimConfig(SGD, STEPLR),
        rank=3,
        epochs=2,
        batch_size=28,
        device="cpu",
        results_dir=str(results),
    )
    return replace(config, **changes)


def validating(config):
    """The same with a fifth of the training images held out, twenty where there are a hundred."""
    return replace(config, dataset=replace(config.dataset, validation=0.2))


def run_of(config):
    return Run(run_directory(config, config))


def metrics(run):
    return pandas.read_csv(run.directory / "metrics.csv").drop(columns=CLOCKS)


def stop_at(monkeypatch, step, shuffle=True, number=signal.SIGTERM):
    """Raise the signal as the given training step (or test step: shuffle=False) of the process begins, from 1."""
    count = 0
    whole = DeviceDataset.epoch

    def epoch(self, batch_size, seed, epoch, shuffle, start=0, world=None):
        nonlocal count
        for batch in whole(self, batch_size, seed, epoch, shuffle=shuffle, start=start):
            count += shuffle == wanted
            if count == step and shuffle == wanted:
                signal.raise_signal(number)
            yield batch

    wanted = shuffle
    monkeypatch.setattr(DeviceDataset, "epoch", epoch)


def stopped(config, monkeypatch, step, **kwargs):
    """Train until the signal of ``stop_at``, and return the exception."""
    with monkeypatch.context() as patch:
        stop_at(patch, step, **kwargs)
        with pytest.raises(Interrupted) as interrupted:
            train(config, run_of(config), print)
    return interrupted.value
