"""Benchmarks of networks that runs have trained."""

from __future__ import annotations

import networks
import pytest
import torch
from torch import nn
from training import config_in, run_of, stopped

from tdcompress.bench.training import Network
from tdcompress.cli.export import load
from tdcompress.config.schema import ArchConfig, MethodConfig
from tdcompress.device.files import RunError
from tdcompress.tensor.rank import parse
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that began at full rank and was cut, and what its summary says: ranks that no budget would give at once."""
    config = config_in(
        tmp_path_factory.mktemp("run"), method=MethodConfig("tucker"), rank=parse("5x"), epochs=4, full_rank_epochs=1
    )
    whole = run_of(config)
    return whole.directory, train(config, whole, print)


@pytest.mark.parametrize("words", ["infer batch_size=1,2", "step batch_size=2", "export batch_size=2 format=torch"])
def test_what_is_timed_is_the_network_that_was_trained(bench, run, words, monkeypatch):
    monkeypatch.setattr("tdcompress.bench.step.step_memory", lambda step: 1.0)
    directory, summary = run
    code, _, err, rows = bench(f"{words} repeats=1 precision=fp32 run={directory}")
    assert (code, err) == (0, "")
    for row in rows[words.split()[0]]:
        assert (row["run"], row["arch"], row["method"], row["rank"]) == (str(directory), "lenet", "tucker", "5x")
        assert int(row["parameters"]) == summary.parameters
        assert float(row["speedup"]) > 0 and float(row["dense_ms"]) > 0
        if "dense_parameters" in row:
            assert int(row["dense_parameters"]) == summary.dense_parameters


def test_settings_are_those_of_the_run(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("tdcompress.bench.step.step_memory", lambda step: 1.0)
    config = config_in(tmp_path, method=MethodConfig("tt", plan="dense", checkpoint=True), epochs=1)
    trained = train(config, run_of(config), print)
    assert trained.macs == trained.dense_macs  # every weight is put together
    words = f"run={run_of(config).directory} batch_size=2 repeats=1 precision=fp32"
    assert bench(f"step {words} plan=chain")[0] == bench(f"step {words} checkpoint=true")[0] == 2
    code, _, err, rows = bench(f"step {words}")
    (row,) = rows["step"]
    assert (code, err, row["plan"], row["checkpoint"]) == (0, "", "dense", "True")
    assert int(row["macs"]) == trained.macs and (row["width"], row["dataset"]) == ("0.25", "digits")


def test_a_pass_is_planned_where_steps_were_measured(bench, tmp_path):
    config = config_in(tmp_path, method=MethodConfig("tt", plan="measure"), epochs=1)
    train(config, run_of(config), print)
    code, _, err, rows = bench(f"infer run={run_of(config).directory} batch_size=2 repeats=1 precision=fp32")
    assert (code, err, rows["infer"][0]["plan"]) == (0, "", "model")


def test_a_model_of_ones_own_is_named(tmp_path, monkeypatch):
    def make(in_channels: int, classes: int, image_size: int) -> nn.Module:
        layers = nn.Linear(in_channels * image_size**2, 32), nn.Linear(32, classes)
        return nn.Sequential(nn.Flatten(), *layers)

    monkeypatch.setattr(networks, "own", make, raising=False)
    arch = ArchConfig(target={"_target_": "networks.own"})
    config = config_in(tmp_path, arch=arch, method=MethodConfig("tt"), epochs=1)
    train(config, run_of(config), print)
    network = Network("vgg16", 1.0, "cifar10", 2, "fp32", "tt", 8, "model").of_run(str(run_of(config).directory))
    assert (network.arch, network.dataset) == ("networks.own", "digits")


def test_a_dense_run_has_no_rank(tmp_path):
    config = config_in(tmp_path, method=MethodConfig("dense"), rank=parse("5x"), epochs=1)
    train(config, run_of(config), print)
    network = Network("vgg16", 1.0, "cifar10", 2, "fp32", "tt", 8, "model").of_run(str(run_of(config).directory))
    assert (network.method, network.rank) == ("dense", 1) and network == network.dense


def test_a_run_with_cores_in_some_layers_is_not_dense(tmp_path):
    config = config_in(tmp_path, method=MethodConfig("dense", linear="tt"), epochs=1)
    trained = train(config, run_of(config), print)
    network = Network("vgg16", 1.0, "cifar10", 2, "fp32", "cp", 8, "model").of_run(str(run_of(config).directory))
    assert network.method == trained.method == "dense+tt_linear" and network.dense.method == "dense"
    sizes = [sum(p.numel() for p in one.build(torch.device("cpu")).parameters()) for one in (network, network.dense)]
    assert sizes == [trained.parameters, trained.dense_parameters] and sizes[0] < sizes[1]


def test_cores_have_the_trained_ranks(run):
    directory, summary = run
    network = Network("vgg16", 1.0, "cifar10", 2, "fp32", "dense", 1, "model").of_run(str(directory))
    state = torch.load(directory / "checkpoint.pt", weights_only=True)["model"]
    built = network.build(torch.device("cpu"))
    assert {name: core.shape for name, core in built.state_dict().items()} == {n: t.shape for n, t in state.items()}
    assert network.image == (1, 16, 16) and network.sizes[-1] == 10
    dense = network.dense.build(torch.device("cpu"))
    assert sum(p.numel() for p in dense.parameters()) == summary.dense_parameters


@pytest.mark.parametrize("word", ["arch=lenet", "width=0.5", "dataset=mnist", "method=tt", "rank=4", "layout=channels"])
def test_a_network_is_not_described_beside_a_run(bench, tmp_path, word):
    for verb in ("infer", "step", "export"):
        code, _, err, rows = bench(f"{verb} run={tmp_path} {word}")
        assert code == 2 and err.count("\n") == 1 and f"{word.split('=')[0]}= is not for run=" in err and not rows


def test_a_run_that_is_not_there_gets_one_line(bench, tmp_path):
    code, _, err, rows = bench(f"infer run={tmp_path / 'none'}")
    assert code == 2 and err.count("\n") == 1 and "there is no run in" in err and not rows
    code, _, err, rows = bench(f"step run={tmp_path}")
    assert code == 2 and err.count("\n") == 1 and "has no checkpoint" in err and not rows


def test_a_run_before_its_switch_has_no_cores_to_time_or_export(bench, tmp_path, monkeypatch):
    config = config_in(tmp_path, rank="5x", epochs=3, full_rank_epochs=2)
    stopped(config, monkeypatch, 6)
    directory = run_of(config).directory
    for verb in ("infer", "step", "export"):
        code, _, err, rows = bench(f"{verb} run={directory}")
        assert code == 2 and err.count("\n") == 1 and "is at full rank after epoch 1" in err and not rows
    with pytest.raises(RunError, match="is at full rank after epoch 1"):
        load(directory)
