"""Runs that begin at full rank: the dense epochs are those of a dense run, then there are cores in their place."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from cases import FACTORISED
from training import config_in, metrics, run_of

from tdcompress.compression.ranks.adaptive import Shrinkage
from tdcompress.compression.stable_ranks import StableRanks
from tdcompress.config.schema import MethodConfig
from tdcompress.results.identity import identity, plain, resolved, typed
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.learner import Learner
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("one_thread", "small_images")


def trained(config):
    lines: list[str] = []
    summary = train(config, run_of(config), lines.append)
    return summary, metrics(run_of(config)), lines


@pytest.fixture(scope="module")
def dense_rows(tmp_path_factory):
    config = config_in(tmp_path_factory.mktemp("dense"), method=MethodConfig("dense"), epochs=4)
    return trained(config)[1]


@pytest.mark.parametrize("method", FACTORISED)
def test_switched_at_once(tmp_path, method, dense_rows):
    config = config_in(tmp_path, method=MethodConfig(method), rank="5x", epochs=4, full_rank_epochs=2, cut="at_once")
    summary, rows, lines = trained(config)
    learned = ["train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "parameters"]
    assert rows[learned][:2].equals(dense_rows[learned][:2])  # bit for bit
    assert (rows.lr == dense_rows.lr).all()  # one schedule
    assert (
        abs(summary.dense_parameters / rows.parameters[2] / 5 - 1) <= 0.02 and rows.parameters[2] == rows.parameters[3]
    )
    assert summary.switch["epoch"] == 2 and summary.switch["seconds"] > 0 and summary.switch["unbounded"] is None
    assert sum("switched to cores after epoch 2" in line for line in lines) == 1
    assert {layer["format"] for layer in summary.layers} == {method, "dense"}


@pytest.mark.parametrize(("settled", "epoch"), [(2, 2), (99, 3)])
def test_by_default_it_switches_once_ranks_have_settled_and_after_a_third_at_the_latest(
    tmp_path, monkeypatch, settled, epoch
):
    change = property(lambda self: 0.0 if len(self.sums) > settled else math.inf)
    monkeypatch.setattr(StableRanks, "change", change)
    switch = trained(config_in(tmp_path, rank="5x", epochs=9, cut="at_once"))[0].switch
    assert (switch["epoch"], switch["unbounded"]) == (epoch, epoch if settled <= epoch else None)


def test_a_budget_that_the_last_cut_misses_is_told(tmp_path, monkeypatch):
    model = torch.nn.Linear(10, 10, bias=False)
    for target, epochs_done, missed in ((80, 2, 0.25), (125, 2, -0.2), (99, 2, 0), (80, 1, 0), (80, 3, 0)):
        assert Shrinkage(target, epochs=4).missed(model, epochs_done) == pytest.approx(missed)
    monkeypatch.setattr(Shrinkage, "missed", lambda self, model, epochs_done: -0.094 * (epochs_done == 4))
    lines = trained(config_in(tmp_path, rank="5x", epochs=6, full_rank_epochs=2))[2]
    said = [line.partition("MACs")[2] for line in lines if line.startswith("cut to")]
    assert said == ["", ": 9.4% less than rank=5x asks for, the nearest that cuts came"]


def test_stable_ranks_of_weights_that_are_not_finite_are_refused():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    ranks = StableRanks.of(model, epochs=4, keep=[])
    torch.nn.init.constant_(model[1].weight, math.nan)
    with pytest.raises(ConfigError, match=r"^layer 1: its weight holds 64 entries of 64 that are not finite"):
        ranks.measure(model)


def test_cut_over_half_of_the_epochs_that_remain(tmp_path):
    config = config_in(tmp_path, rank="5x", epochs=6, full_rank_epochs=2)
    summary, rows, _ = trained(config)
    dense = summary.dense_parameters
    begun = math.sqrt(5)  # halfway on a log scale
    for epoch, ratio in ((1, 1), (2, 1), (3, begun), (4, math.sqrt(5 * begun)), (5, 5), (6, 5)):
        assert abs(dense / rows.parameters[epoch - 1] / ratio - 1) <= 0.04, epoch
    assert abs(dense / summary.parameters / 5 - 1) <= 0.02 and summary.rank == "5x"


def test_cut_to_a_budget_of_macs(tmp_path):
    config = config_in(tmp_path, method=MethodConfig("tucker"), rank="macs:0.5", epochs=6, full_rank_epochs=2)
    summary, rows, lines = trained(config)
    dense, begun = summary.dense_macs, math.sqrt(0.5)
    for epoch, share in ((1, 1), (2, 1), (3, begun), (4, math.sqrt(0.5 * begun)), (5, 0.5), (6, 0.5)):
        assert abs(rows.macs[epoch - 1] / dense / share - 1) <= 0.04, epoch
    assert abs(summary.macs / dense / 0.5 - 1) <= 0.02 and summary.rank == "macs:0.5"
    assert any("MACs, reached by cuts, which choose the ranks and so the parameters" in line for line in lines)


@pytest.mark.parametrize("rank", ["macs:0.5", "vbmf", 4])
def test_other_ranks_after_full_rank(tmp_path, rank):
    summary, rows, _ = trained(config_in(tmp_path, rank=rank, epochs=2, full_rank_epochs=1))
    assert rows.parameters[0] == summary.dense_parameters > rows.parameters[1] == summary.parameters


# What is asked, and for how many epochs the network is dense.
ASKED = [
    ({"rank": 4}, 0),
    ({"rank": "4-4"}, 0),
    ({"rank": "reference"}, 0),
    ({"rank": "10x", "epochs": 1}, 0),
    ({"rank": "10x", "init_from": "somewhere"}, 0),
    ({"rank": "10x", "method": MethodConfig("dense")}, 0),
    ({"rank": "10x"}, "auto"),
    ({"rank": "params:9000"}, "auto"),
    ({"rank": "macs:0.2"}, "auto"),
    ({"rank": "adaptive:10x", "epochs": 3}, "auto"),
    ({"rank": "10x", "full_rank_epochs": 0}, 0),
    ({"rank": 4, "full_rank_epochs": 1}, 1),
]


def test_the_best_epoch_is_of_a_network_as_large_as_the_last(tmp_path, monkeypatch):
    accuracies = iter([0.9, 0.8, 0.4, 0.5, 0.3])
    monkeypatch.setattr(Learner, "evaluate", lambda *_: (1.0, next(accuracies)))
    changes = {"rank": "5x", "epochs": 5, "full_rank_epochs": 2, "cut": "at_once"}
    summary, rows, _ = trained(config_in(tmp_path, **changes))
    assert rows.test_accuracy.tolist() == [0.9, 0.8, 0.4, 0.5, 0.3]
    assert (summary.best_test_accuracy, summary.test_accuracy) == (0.5, 0.3)


@pytest.mark.parametrize(("changes", "epochs"), ASKED)
def test_which_runs_begin_at_full_rank(tmp_path, changes, epochs):
    assert resolved(config_in(tmp_path, **changes)).full_rank_epochs == epochs


def test_a_configuration_saved_before_there_was_one_begins_with_its_cores(tmp_path):
    saved = json.loads(json.dumps(plain(config_in(tmp_path, rank="10x"))))
    del saved["full_rank_epochs"], saved["cut"], saved["method"]["rank_multiple"]
    assert typed(saved).full_rank_epochs == 0 and typed(saved).method.rank_multiple == 1
    assert identity(saved) != identity(plain(config_in(tmp_path, rank="10x")))
    assert identity(saved | {"rank": 4}) == identity(plain(config_in(tmp_path, rank=4)))


def test_what_cannot_be_switched_is_told_before_training(tmp_path):
    for changes, said in (
        (
            {"rank": 500, "full_rank_epochs": 1},
            "no layer would be held as cores .* no fewer entries",
        ),
        ({"rank": "5000x"}, "rank=5000x cannot be met within 2 %"),
        ({"rank": "5x", "full_rank_epochs": 2}, "full_rank_epochs=2 must be less than epochs=2"),
        ({"rank": "5x", "full_rank_epochs": -1}, "full_rank_epochs=-1 must be a whole number"),
        ({"rank": "5x", "cut": "never"}, "unknown cut 'never', known: gradual, at_once"),
    ):
        config = replace(config_in(tmp_path), **changes)
        with pytest.raises(ConfigError, match=said):
            train(config, run_of(config))
    assert not list(tmp_path.rglob("metrics.csv"))
