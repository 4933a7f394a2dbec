"""Checkpoints: of an earlier version, of a later one, of another network, and what is not their fault."""

from __future__ import annotations

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch
from torch import nn

from tdcompress.cli import export
from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.device.files import RunError
from tdcompress.results.identity import run_directory, typed
from tdcompress.results.rows import read_metrics, read_runs
from tdcompress.results.run import Run
from tdcompress.results.tables import read_results, write_results
from tdcompress.tensor.errors import ConfigError
from tdcompress.train import checkpoint
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.run import train
from tdcompress.train.weights import read_weights

pytestmark = pytest.mark.usefixtures("one_thread")

OLD = Path(__file__).parent / "v0.1.0"  # results of that version: a run of two epochs, interrupted after the first
BASELINE = TrainConfig(optim=OptimConfig({"_target_": "torch.optim.SGD", "momentum": 0.9}))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old run, in a folder of results."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    (directory,) = tmp_path.glob("runs/*/*/*/seed0")
    return directory


def parameters(directory: Path) -> int:
    """Entries of the tensors in a checkpoint, all of which are parameters in these networks."""
    state = torch.load(directory / checkpoint.NAME, weights_only=True)["model"]
    return sum(tensor.numel() for tensor in state.values())


def test_a_run_of_version_0_1_0_is_listed(old: Path):
    results = old.parents[4]
    runs = read_runs(results)
    row = runs.iloc[0]
    assert (row.status, row.epochs_done, row.parameters, row.method, row["rank"]) == ("interrupted", 1, 379, "tt", "4")
    epoch = read_metrics(runs).iloc[0]
    table = pandas.read_csv(old / "metrics.csv")
    assert epoch.train_loss == table.train_loss[0] and epoch.test_accuracy == table.test_accuracy[0]
    assert math.isnan(epoch.parameters) and math.isnan(epoch.macs)


def test_a_run_of_version_0_1_0_goes_on(old: Path):
    config = typed(json.loads((old / "summary.json").read_text())["config"])
    assert run_directory(config, config).name == old.name
    before = pandas.read_csv(old / "metrics.csv")
    lines: list[str] = []
    summary = train(replace(config, results_dir=str(old.parents[4])), Run(old), lines.append)
    assert any("going on from epoch 2, step 1" in line for line in lines)
    assert (summary.status, summary.epochs_done, summary.parameters, parameters(old)) == ("finished", 2, 379, 379)
    after = pandas.read_csv(old / "metrics.csv")
    pandas.testing.assert_frame_equal(after.iloc[:1][before.columns], before)
    assert math.isnan(after.parameters[0]) and after.parameters[1] == parameters(old)
    assert summary.best_test_accuracy == after.test_accuracy.max()
    assert torch.load(old / checkpoint.NAME, weights_only=True)["format"] == 2


def test_a_network_of_version_0_1_0_is_exported_and_gone_on_from(old: Path):
    trained = export.load(old)
    weights = torch.load(old / checkpoint.NAME, weights_only=True)["model"]
    found = trained.factorised.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    images = torch.randn(3, *trained.image)
    torch.testing.assert_close(trained.factorised(images), trained.dense(images), rtol=1e-4, atol=1e-5)
    export.run([f"run={old}", "format=dense", f"output={old / 'weights.pt'}"])
    assert (old / "weights.pt").stat().st_size > 1000
    assert read_weights(str(old)).state.keys() == weights.keys()


def test_tables_without_the_newest_columns_are_read_and_counts_keep_their_digits(old: Path):
    results, path = old.parents[4], old / "metrics.csv"
    write_results(results, *read_results(results))
    kept = pandas.read_csv(results / "metrics.csv")
    kept.drop(columns=["parameters", "macs", "degeneracy"]).to_csv(results / "metrics.csv", index=False)
    shutil.rmtree(results / "runs")
    assert read_results(results)[1].macs.isna().tolist() == [True]
    path.parent.mkdir(parents=True)
    path.write_text("epoch,lr,parameters,macs\n1,0.12345678,123456789,nan\n2,0.1,123456788,7\n")
    (old / "summary.json").write_text('{"status": "finished", "dataset": "digits"}')
    write_results(results, *read_results(results))
    lines = (results / "metrics.csv").read_text().splitlines()
    assert lines[1].endswith(",123456789,,,") and ",0.123457," in lines[1] and lines[2].endswith(",123456788,7,,")


def test_a_checkpoint_of_a_later_version_says_whose_it_is(old: Path):
    state = torch.load(old / checkpoint.NAME, weights_only=True)
    torch.save(state | {"format": 3, "tdcompress": "7.8.9"}, old / checkpoint.NAME)
    config = typed(state["config"])
    said = r"checkpoint\.pt is of format 3, written by tdcompress 7\.8\.9; this is \S+, which reads formats up to 2"
    for read in (
        lambda: train(config, Run(old), print),
        lambda: read_weights(str(old)),
        lambda: export.load(old),
    ):
        with pytest.raises(RunError, match=said) as error:
            read()
        assert "\n" not in str(error.value)


def stopped(config: TrainConfig, run: Run, line: str) -> None:
    """Train until the log says ``line``, and the step after it."""

    def log(text: str) -> None:
        if text.startswith(line):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config, run, log)


@pytest.mark.parametrize("format", [1, 0])
def test_counts_are_of_the_network_that_was_tested(tmp_path: Path, format: int):
    config = replace(
        BASELINE,
        dataset=DatasetConfig("digits", image_size=16, limit=100),
        arch=ArchConfig("lenet", width=0.25),
        method=MethodConfig("tt", layout="split"),
        rank="adaptive:8x",
        full_rank_epochs=0,
        epochs=3,
        batch_size=50,
        device="cpu",
        precision="fp32",
        results_dir=str(tmp_path),
    )
    run = Run(run_directory(config, config))
    stopped(config, run, "cut to ")  # after the first epoch
    small = parameters(run.directory)
    before, first = run.summary(), pandas.read_csv(run.directory / "metrics.csv").iloc[0]
    assert before.parameters == first.parameters > small
    assert before.test_accuracy == before.best_test_accuracy == first.test_accuracy
    assert before.compression_ratio == before.dense_parameters / before.parameters
    cores = sum(layer["parameters"] for layer in before.layers)
    assert before.parameters - 200 < cores < before.parameters  # all but the biases
    path = run.directory / checkpoint.NAME
    if format == 0:
        state = torch.load(path, weights_only=True)
        rows = [{key: row[key] for key in row if key not in ("parameters", "macs")} for row in state["rows"]]
        old = {key: value for key, value in state.items() if key not in ("format", "counts", "tdcompress")}
        torch.save(old | {"rows": rows}, path)
    stopped(config, run, run.directory.as_posix())  # before its first step
    again = run.summary()
    if format == 1:
        assert replace(again, status=before.status) == before
    else:  # nobody wrote down how large the network of that accuracy was
        assert again.test_accuracy == before.test_accuracy
        assert again.parameters is None and again.macs is None and again.layers == []
    ended = train(config, run, print)
    table = pandas.read_csv(run.directory / "metrics.csv")
    assert ended.parameters == parameters(run.directory) == small
    assert table.parameters[1:].tolist() == [small, small]
    assert table.macs[1:].tolist() == [ended.macs] * 2
    assert ended.best_test_accuracy == table.test_accuracy[1:].max()


class Own(nn.Sequential):
    """A user's own network, which can be made to fail."""

    broken = ""
    hidden = 12

    def __init__(self, in_channels: int, classes: int, image_size: int) -> None:
        pixels = in_channels * image_size**2
        super().__init__(nn.Flatten(), nn.Linear(pixels, self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes))
        if self.broken == "constructor":
            raise RuntimeError("no such layer")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.broken == "forward":
            raise RuntimeError("my own mistake")
        return super().forward(x)


def own_network(**sizes: int) -> nn.Module:
    return Own(**sizes)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """The configuration of a run of ``Own``, interrupted after its first epoch."""
    monkeypatch.setattr("tdcompress.models.build.call_target", lambda target, key, **sizes: own_network(**sizes))
    config = replace(
        BASELINE,
        dataset=DatasetConfig("digits", image_size=8, limit=60),
        arch=ArchConfig(target={"_target_": "networks.own"}),
        rank=2,
        epochs=2,
        batch_size=30,
        device="cpu",
        precision="fp32",
        results_dir=str(tmp_path),
    )
    stopped(config, Run(run_directory(config, config)), "epoch 1")
    return config


@pytest.mark.parametrize(
    ("broken", "kind", "message"),
    [
        ("forward", ConfigError, r"arch.target cannot take an image \(1, 8, 8\): my own mistake"),
        ("constructor", RuntimeError, "no such layer"),
    ],
)
def test_what_a_new_run_would_say_as_well_is_not_the_checkpoints_fault(
    own: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, kind: type[Exception], message: str
):
    monkeypatch.setattr(Own, "broken", broken)
    fresh = replace(own, results_dir=str(tmp_path / "fresh"))
    for config in (own, fresh):
        with pytest.raises(kind, match=message) as error:
            train(config, Run(run_directory(config, config)), print)
        assert not isinstance(error.value, RunError) and "checkpoint" not in str(error.value)


@pytest.mark.parametrize("key", ["model", "optimizer", "plans", "rows", "hidden"])
def test_what_is_wrong_with_a_checkpoint_is_said_of_it(own: TrainConfig, monkeypatch: pytest.MonkeyPatch, key: str):
    directory = run_directory(own, own)
    state = checkpoint.load(directory, print)
    assert state is not None
    if key == "hidden":
        monkeypatch.setattr(Own, "hidden", 14)
    elif key == "model":
        weights = {name: value[:1] if name == "3.bias" else value for name, value in state["model"].items()}
        checkpoint.save(directory, state | {"model": weights})
    else:
        checkpoint.save(directory, {name: value for name, value in state.items() if name != key})
    with pytest.raises(RunError, match=r"the checkpoint does not fit this network \(.+\); delete it") as error:
        train(own, Run(directory), print)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_checkpoint(tmp_path: Path):
    torch.save([1, 2], tmp_path / checkpoint.NAME)
    with pytest.raises(RunError, match=r"checkpoint\.pt is no checkpoint of a run"):
        checkpoint.load(tmp_path, print)
