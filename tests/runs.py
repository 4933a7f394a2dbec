"""Made-up runs on disk."""

from __future__ import annotations

from dataclasses import replace

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, TrainConfig
from tdcompress.results.identity import method_name, plain, run_directory
from tdcompress.results.record import METRICS, Epoch, Summary
from tdcompress.results.run import Run

BASE = TrainConfig(dataset=DatasetConfig("mnist"), arch=ArchConfig("lenet"), rank="10x", epochs=4)
BASELINE = TrainConfig(dataset=DatasetConfig("mnist"), arch=ArchConfig("vgg16"), method=MethodConfig("tt"), rank=8)


def make(results, method="tt", accuracy=0.9, status="finished", device="a CPU", parameters=1000, **changes):
    """A run whose test accuracy rises by a hundredth an epoch to ``accuracy``.

    With ``dataset.validation`` its validation accuracy is always two hundredths less, but for the second epoch, the
    best, in which it is two more.
    """
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
    rows = [
        Epoch(epoch, config.lr, train_accuracy=0.5, test_accuracy=accuracy + (epoch - done) / 100)
        for epoch in range(1, done + 1)
    ]
    if config.dataset.validation > 0:
        rows = [replace(row, validation_accuracy=row.test_accuracy - 0.02) for row in rows]
        best = rows[1] = replace(rows[1], validation_accuracy=rows[1].test_accuracy + 0.02)
        chosen = {"best_epoch": 2, "best_validation_accuracy": best.validation_accuracy}
        summary = replace(summary, **chosen, best_test_accuracy=best.test_accuracy)
    run.write_summary(summary)
    run.write_metrics(rows)
    return run


def row(epoch, **values):
    """An epoch with a number in every column."""
    return replace(Epoch(epoch, *[0.1 + epoch] * (len(METRICS) - 1)), parameters=10 * epoch, macs=100, **values)


def write_run(directory, epochs=2, **values):
    """A finished run in this directory, which names it; ``values`` are of its summary."""
    dataset, arch, variant, seed = directory.parts[-4:]
    summary = Summary("finished", dataset, arch, variant.split("-")[0], "8", int(seed[4:]), epochs, epochs)
    run = Run(directory)
    run.write_summary(replace(summary, **{"test_accuracy": 0.9, **values}))
    run.write_metrics([row(epoch + 1) for epoch in range(epochs)])
    return run
