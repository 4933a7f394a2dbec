"""Made-up runs on disk."""

from __future__ import annotations

from dataclasses import replace

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, TrainConfig
from tdcompress.results.identity import method_name, plain, run_directory
from tdcompress.results.record import Epoch, Summary
from tdcompress.results.run import Run

BASE = TrainConfig(dataset=DatasetConfig("mnist"), arch=ArchConfig("lenet"), rank="10x", epochs=4)


def make(results, method="tt", accuracy=0.9, status="finished", device="a CPU", parameters=1000, **changes):
    """A run whose test accuracy rises by a hundredth an epoch to ``accuracy``."""
    own = method if isinstance(method, MethodConfig) else MethodConfig(method)
    config = replace(BASE, results_dir=str(results), method=own, **changes)
    run = Run(run_directory(config, replace(BASE, method=MethodConfig(own.format))))
    done = config.epochs if status == "finished" else 2
    summary = Summary(
        status, config.dataset.name, "lenet", method_name(own), None if own.format == "dense" else str(config.rank),
        config.seed, done, config.epochs, device, parameters=parameters, compression_ratio=10_000 / parameters,
        macs=3 * parameters, test_accuracy=accuracy if status == "finished" else None, best_test_accuracy=accuracy,
        train_seconds_per_epoch=2.0 + config.seed, config=plain(config), versions={"torch": "2"},
    )  # fmt: skip
    run.write_summary(summary)
    rows = [
        Epoch(epoch, config.lr, train_accuracy=0.5, test_accuracy=accuracy + (epoch - done) / 100)
        for epoch in range(1, done + 1)
    ]
    run.write_metrics(rows)
    return run
