"""One training: what it leaves, when it is not repeated, and how it fails."""

import gc
import json
import shutil
import weakref
from dataclasses import replace

import pandas
import pytest
import torch
from training import CLOCKS, COSINE, LEFT, config_in, metrics, run_of, stop_at, stopped

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig
from tdcompress.data.datasets import DeviceDataset
from tdcompress.device.files import RunError
from tdcompress.models import build as archs
from tdcompress.results.identity import run_directory
from tdcompress.results.record import METRICS
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.train import checkpoint
from tdcompress.train import run as training_run
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("small_images")


def test_a_run_leaves_what_it_promises(tmp_path):
    config = config_in(tmp_path)
    run = Run(run_directory(config, config), {".hydra/config.yaml": "lr: 0.05\n"})
    lines = []
    summary = train(config, run, lines.append)
    assert {path.name for path in run.directory.iterdir()} == {".hydra", *LEFT}
    table = pandas.read_csv(run.directory / "metrics.csv")
    assert table.columns.tolist() == list(METRICS)
    assert table.epoch.tolist() == [1, 2]
    assert table.lr.tolist() == [0.05, 0.025]
    unknown = ["degeneracy", "validation_loss", "validation_accuracy"]  # no hyperedge, no image held out
    assert table.drop(columns=unknown).notna().all(axis=None)
    assert table[unknown].isna().all(axis=None)
    assert (table[CLOCKS] > 0).all(axis=None)
    assert (table.images_per_second * table.train_seconds).tolist() == pytest.approx([100, 100])
    assert (table.train_accuracy * 100 % 1).abs().max() < 1e-9  # of 100 images
    assert json.loads((run.directory / "summary.json").read_text()) == summary.values()
    assert summary.status == "finished"
    assert summary.test_accuracy == table.test_accuracy.iloc[-1]
    assert summary.train_seconds_per_epoch == table.train_seconds.median()
    assert summary.parameters < summary.dense_parameters
    assert summary.config["lr"] == 0.05
    assert len([line for line in lines if line.startswith("epoch")]) == 2
    runs = read_runs(tmp_path)
    assert runs.loc[0, ["method", "rank", "status", "epochs_done"]].tolist() == ["tt", "3", "finished", 2]


@pytest.mark.parametrize(("step", "since"), [(4, 2), (5, 3), (9, 4)])
def test_times_are_those_of_the_device_that_came_last(tmp_path, monkeypatch, step, since):
    config = config_in(tmp_path, epochs=4)  # of four steps
    stopped(config, monkeypatch, step)
    monkeypatch.setattr(training_run, "device_name", lambda device: "another device")
    stopped(config, monkeypatch, 1)  # and nothing is forgotten once more
    summary = train(config, run_of(config), print)
    table = pandas.read_csv(run_of(config).directory / "metrics.csv")
    assert (summary.device, summary.device_since) == ("another device", since)
    assert summary.train_seconds_per_epoch == table.train_seconds[since - 1 :].median()


def test_times_are_those_of_the_network_as_large_as_it_ends(tmp_path):
    config = config_in(tmp_path, rank="4x", epochs=6, full_rank_epochs=2, cut="gradual")
    summary = train(config, run_of(config), print)
    table = pandas.read_csv(run_of(config).directory / "metrics.csv")
    last = table[table.parameters == table.parameters.iloc[-1]]
    assert table.parameters.nunique() > 2 and 1 < len(last) < 4
    assert summary.train_seconds_per_epoch == last.train_seconds.median()


def test_an_ended_run_of_other_weights_is_not_taken_for_this_one(tmp_path):
    one, other = (
        config_in(tmp_path / name, epochs=1, lr=lr, full_rank_epochs=0) for name, lr in (("a", 0.1), ("b", 0.2))
    )
    for config in (one, other):
        train(config, run_of(config), print)
    shutil.copy(run_of(one).directory / checkpoint.NAME, tmp_path / "given.pt")
    config = config_in(tmp_path, epochs=1, init_from=str(tmp_path / "given.pt"))
    summary = train(config, run_of(config), print)
    assert train(config, run_of(config), print) == summary
    shutil.copy(run_of(other).directory / checkpoint.NAME, tmp_path / "given.pt")
    with pytest.raises(RunError, match=r"started from other weights than init_from=.*given.pt holds now; delete it"):
        train(config, run_of(config), print)
    (tmp_path / "given.pt").unlink()
    assert train(config, run_of(config), print) == summary


def test_an_ended_run_is_not_repeated(tmp_path, monkeypatch):
    config = config_in(tmp_path, epochs=1)
    summary = train(config, run_of(config), print)
    stop_at(monkeypatch, 1)
    lines = []
    assert train(config, run_of(config), lines.append) == summary
    assert len(lines) == 1
    assert lines[0].endswith(f"test accuracy {summary.test_accuracy:.2%}; not run again")
    with pytest.raises(RunError, match="another configuration"):
        train(replace(config, lr=0.1), run_of(config), print)


@pytest.mark.parametrize("left", [100, None])
def test_a_damaged_table_of_epochs_is_made_again(tmp_path, left):
    config = config_in(tmp_path, epochs=1)
    summary = train(config, run_of(config), print)
    table = run_of(config).directory / "metrics.csv"
    whole = table.read_text()
    if left is None:
        table.unlink()
    else:
        table.write_text(whole[:left])
    assert train(config, run_of(config), print).test_accuracy == summary.test_accuracy
    assert table.read_text() == whole


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    tables = []
    for results, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = config_in(tmp_path / results, seed=seed, epochs=1)
        train(config, run_of(config), print)
        tables.append(metrics(run_of(config)))
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_a_run_is_the_same_where_rates_are_measured_first(tmp_path, monkeypatch):
    def measuring(device, dtype):
        torch.rand(draws)
        return Rates()

    monkeypatch.setattr("tdcompress.train.network.device_rates", measuring)
    tables = []
    for draws in (0, 5):
        config = config_in(tmp_path / str(draws), epochs=1)
        train(config, run_of(config), print)
        tables.append(metrics(run_of(config)))
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("rank", [4, "adaptive:8x"])
def test_a_run_that_diverges_stops_and_says_so(tmp_path, rank):
    config = config_in(tmp_path, rank=rank, lr=1e30, epochs=2)
    lines = []
    summary = train(config, run_of(config), lines.append)
    assert summary.status == "diverged"
    assert summary.epochs_done == 1
    assert summary.test_accuracy is None
    assert lines[-1].endswith("diverged in epoch 1: the loss is not a number; try a smaller lr")
    assert metrics(run_of(config)).epoch.tolist() == [1]
    assert train(config, run_of(config), lines.append) == summary
    assert lines[-1].endswith("not run again")


def test_what_an_optimizer_knows_of_a_core_begins_anew_where_that_is_cut(tmp_path):
    """Means that begin at zero are corrected by the steps since: 3 to 6 times too long were Adam's for 100 steps."""
    optim = OptimConfig({"_target_": "torch.optim.AdamW"}, COSINE, "step")
    config = config_in(tmp_path, rank="adaptive:8x", full_rank_epochs=0, epochs=3, optim=optim, lr=1e-3)
    train(config, run_of(config), print)  # cut after the first epoch of three, of four steps each
    state = checkpoint.load(run_of(config).directory, print)
    steps = {int(one["step"]) for one in state["optimizer"]["state"].values()}
    assert steps == {8, 12}


def test_a_dense_run_beside_those_that_are_cut_says_nothing_of_it(tmp_path):
    config, lines = config_in(tmp_path, method=MethodConfig("dense"), rank="adaptive:8x", epochs=3), []
    train(config, run_of(config), lines.append)
    assert not any("cut" in line for line in lines)


def test_a_busy_run_is_left_alone(tmp_path):
    config = config_in(tmp_path)
    with run_of(config).locked(), pytest.raises(RunError, match="another process works on"):
        train(config, run_of(config), print)


def test_a_compiled_run_learns_and_is_another_run(tmp_path, monkeypatch):
    plain = config_in(tmp_path, epochs=1)
    config = replace(plain, compile=True)
    assert run_directory(config, plain) != run_directory(plain, plain)
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: asked.append(options) or (lambda x: model(x)))
    train(config, Run(run_directory(config, plain)), print)
    assert asked == [{"fullgraph": True, "dynamic": False, "mode": "default"}]
    weights = checkpoint.load(run_directory(config, plain), print)["model"]
    train(plain, run_of(plain), print)  # its checkpoint has the same names
    assert weights.keys() == checkpoint.load(run_of(plain).directory, print)["model"].keys()


def test_no_step_reads_from_the_device(tmp_path, monkeypatch):
    """Reads may happen between the loops only."""
    inside = False
    whole = DeviceDataset.epoch

    def epoch(self, *args, **kwargs):
        nonlocal inside
        inside = True
        yield from whole(self, *args, **kwargs)
        inside = False

    def watched(read):
        def call(*args, **kwargs):
            assert not inside
            return read(*args, **kwargs)

        return call

    monkeypatch.setattr(DeviceDataset, "epoch", epoch)
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, watched(getattr(torch.Tensor, name)))
    config = config_in(tmp_path, epochs=1)
    assert train(config, run_of(config), print).status == "finished"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(tmp_path):
    config = config_in(tmp_path / "results", device="cuda")
    with pytest.raises(ConfigError, match="device=cpu"):
        train(config, run_of(config), print)
    assert not (tmp_path / "results").exists()


OUT_OF_MEMORY = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 9"), "allocate 20.00 MiB"),
    (
        RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes\nframe #0"),
        "tried 8 bytes",
    ),
    (MemoryError(), "of the machine"),
]


@pytest.mark.parametrize(("error", "asked"), OUT_OF_MEMORY, ids=lambda value: type(value).__name__)
def test_out_of_memory_is_one_line_and_holds_no_memory(tmp_path, monkeypatch, error, asked):
    networks = []

    def forward(*args, **options):
        raise type(error)(*error.args)

    def building(*args):
        model = archs.build(*args)
        networks.append(weakref.ref(model))
        return model

    config = config_in(tmp_path)
    monkeypatch.setattr("tdcompress.train.learner.F.cross_entropy", forward)
    monkeypatch.setattr("tdcompress.train.network.build", building)
    with pytest.raises(RunError, match=rf"{asked}\), peak so far .* MB; try batch_size=14, or a") as told:
        train(config, run_of(config), print)
    assert "\n" not in str(told.value)
    assert read_runs(tmp_path).status.tolist() == ["interrupted"]
    gc.collect()
    assert networks[0]() is None  # though ``told`` is still there


def test_a_last_batch_of_one_image_that_a_norm_cannot_take_is_told(tmp_path):
    dataset = DatasetConfig("digits", image_size=4, limit=57)
    method, arch = MethodConfig("dense"), ArchConfig("resnet20", width=0.2)
    config = config_in(tmp_path, dataset=dataset, method=method, arch=arch, batch_size=28, epochs=1)
    with pytest.raises(
        RunError, match="batch_size=28 leaves a batch of one image, of which a batch norm sees one pixel"
    ):
        train(config, run_of(config))


def test_cores_of_trained_weights_are_fits_and_nothing_else(tmp_path):
    dense = config_in(tmp_path, method=MethodConfig("dense"), epochs=1)
    train(dense, run_of(dense))
    start = str(run_of(dense).directory)
    config = config_in(tmp_path, method=MethodConfig("tt", init="variance"), init_from=start, epochs=1)
    with pytest.raises(ConfigError, match=r"method\.init=variance is for cores that begin from scratch"):
        train(config, run_of(config))
    fitted = replace(config, method=MethodConfig("tt", init="fit"))
    assert train(fitted, run_of(fitted)).status == "finished"
