"""What is chosen while training is chosen on images that are held out; those of the test are for reporting only."""

from __future__ import annotations

import math
import re
import signal
from dataclasses import replace

import pandas
import pytest
import torch
from torch import nn
from training import COSINE, SCHEDULERS, SGD, config_in, metrics, run_of, validating

from tdcompress.cli import export
from tdcompress.config.schema import ArchConfig, OptimConfig
from tdcompress.data.sources import DATASETS
from tdcompress.results.identity import identity, plain, run_directory
from tdcompress.results.record import Epoch
from tdcompress.results.rows import read_runs
from tdcompress.tensor.errors import ConfigError
from tdcompress.train import checkpoint
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.learner import Learner
from tdcompress.train.run import train
from tdcompress.train.weights import read_weights

pytestmark = pytest.mark.usefixtures("small_images")


@pytest.fixture
def config(tmp_path):
    """Two epochs of which the first is the better: the rate is too high."""
    optim = OptimConfig(SGD, COSINE, "step")
    return validating(config_in(tmp_path, arch=ArchConfig("lenet", width=0.1), optim=optim, lr=2.0, precision="fp32"))


def test_without_held_out_images_a_run_is_the_one_it_was(tmp_path, config):
    without = replace(config, dataset=replace(config.dataset, validation=0))
    older = plain(without)
    del older["dataset"]["validation"]
    assert identity(older) == identity(plain(without)) != identity(plain(config))
    assert run_directory(without, without).parent.name == "tt-3"
    assert re.fullmatch("tt-3-[0-9a-f]{8}", run_directory(config, without).parent.name)


def test_both_curves_and_the_best_epoch_are_told(tmp_path, config):
    lines = []
    summary = train(config, run_of(config), lines.append)
    table = pandas.read_csv(run_of(config).directory / "metrics.csv")
    assert (table.validation_accuracy * 20 % 1).max() < 1e-9 and (table.train_accuracy * 80 % 1).max() < 1e-9
    assert table.validation_loss.notna().all() and "data: 20 of 100 training images are held out" in lines[0]
    for line, row in zip([line for line in lines if line.startswith("epoch")], table.itertuples(), strict=True):
        assert f"  validation {row.validation_accuracy:.2%}  test {row.test_accuracy:.2%}  " in line
    best = table.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True]).iloc[0]
    assert summary.best_epoch == best.epoch == 1
    assert summary.best_test_accuracy == table.test_accuracy[0]
    assert summary.best_validation_accuracy == table.validation_accuracy[0]
    said = f"test accuracy {table.test_accuracy[1]:.2%} ({table.test_accuracy[0]:.2%} after epoch 1, the best by valid"
    assert said in lines[-1]
    row = read_runs(tmp_path).loc[0]
    assert row.best_epoch == 1 and "dataset.validation=0.2" in row.setting.split()


def test_the_best_weights_are_kept_and_used(config, capsys):
    def log(line):
        if line.startswith("epoch 1"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(config, run_of(config), log)
    first = checkpoint.load(run_of(config).directory, print)["model"]
    train(config, run_of(config), print)
    newest = checkpoint.load(run_of(config).directory, print)["model"]
    capsys.readouterr()
    exported = export.load(run_of(config).directory).factorised.state_dict()
    assert capsys.readouterr().out == "weights after epoch 1, the best of 2 by validation\n"
    started_from = read_weights(str(run_of(config).directory)).state
    for name, weight in first.items():
        assert torch.equal(exported[name], weight) and torch.equal(started_from[name], weight)
    assert not all(torch.equal(weight, newest[name]) for name, weight in first.items())


def test_the_test_images_decide_nothing(tmp_path, config, monkeypatch):
    train(config, run_of(config), print)
    images = DATASETS["digits"].load(config.dataset)
    images = replace(images, test_images=255 - images.test_images, test_labels=images.test_labels.flip(0))
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=lambda config: images))
    other = replace(config, results_dir=str(tmp_path / "other"))
    train(other, run_of(other), print)
    tables = [metrics(run_of(one)).drop(columns=["test_loss", "test_accuracy"]) for one in (config, other)]
    assert tables[0].equals(tables[1]) and not metrics(run_of(config)).equals(metrics(run_of(other)))
    states = [checkpoint.load(run_of(one).directory, print) for one in (config, other)]
    for weights in (lambda state: state["model"], lambda state: state["best"]["model"]):
        one, two = map(weights, states)
        assert all(torch.equal(weight, two[name]) for name, weight in one.items())


@pytest.mark.parametrize(("validation_losses", "lr"), [((1.0, 2.0), 0.005), ((2.0, 1.0), 0.05), ((None, None), 0.005)])
def test_a_plateau_is_one_of_the_validation_loss_where_there_is_one(tmp_path, validation_losses, lr):
    optim = OptimConfig(SGD, {"_target_": f"{SCHEDULERS}.ReduceLROnPlateau", "patience": 0})
    learner = Learner(config_in(tmp_path, optim=optim), nn.Sequential(nn.Linear(2, 2)), 1, torch.device("cpu"))
    for number, loss in enumerate(validation_losses, 1):
        held = {} if loss is None else {"validation_loss": loss, "validation_accuracy": 0.5}
        learner.close_epoch(Epoch(number, train_loss=1.0, test_loss=1 / number, **held))
    assert learner.lr == pytest.approx(lr)


def test_a_run_that_diverges_keeps_its_best_weights(config):
    steep = {"_target_": f"{SCHEDULERS}.StepLR", "step_size": 1, "gamma": 1e30}
    config = replace(config, lr=0.05, optim=OptimConfig(SGD, steep))
    summary = train(config, run_of(config), print)
    assert summary.status == "diverged" and summary.best_epoch == 1
    state = checkpoint.load(run_of(config).directory, print)
    assert state["best"]["epoch"] == state["epoch"] == 1
    last = metrics(run_of(config)).iloc[-1]
    assert math.isnan(last.validation_loss)


def test_what_cannot_be_held_out_is_refused_before_anything_is_written(tmp_path, config):
    images = DATASETS["digits"].load(config.dataset)
    alone = images.train_labels.clone()
    alone[alone == 3] = 4
    alone[0] = 3
    for change, said in (({"validation": 0.7}, "between 0 and 0.5"), ({}, "of class 3 .* there is one")):
        with pytest.MonkeyPatch.context() as patch:
            made = replace(images, train_labels=alone)
            patch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=lambda config, made=made: made))
            with pytest.raises(ConfigError, match=said) as error:
                train(replace(config, dataset=replace(config.dataset, **change)), run_of(config), print)
        assert "\n" not in str(error.value) and not run_of(config).directory.exists()
