"""A run, broken and resumed in every way, ends as if nothing had happened."""

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from training import COSINE, LEFT, SCHEDULERS, SGD, config_in, metrics, run_of, stopped, validating

from tdcompress.compression.survey import plans as planning
from tdcompress.compression.survey.counts import count
from tdcompress.config.schema import ArchConfig, MethodConfig, OptimConfig
from tdcompress.device.files import RunError
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.train import checkpoint
from tdcompress.train.interrupt import Interrupted, StopSignals
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("small_images")

ONE_CYCLE = {"_target_": f"{SCHEDULERS}.OneCycleLR", "max_lr": "lr", "total_steps": "steps"}


@pytest.mark.parametrize(
    "optim",
    [
        OptimConfig(SGD, COSINE, "step"),
        OptimConfig({"_target_": "torch.optim.AdamW"}, {"_target_": f"{SCHEDULERS}.MultiStepLR", "milestones": [1]}),
        OptimConfig(SGD, ONE_CYCLE, "step"),
        OptimConfig(SGD, ONE_CYCLE, "step", core_lr="balanced"),
        OptimConfig({"_target_": "tdcompress.train.optim.muon.Muon"}, COSINE, "step", core_lr="balanced"),
        OptimConfig(SGD, {"_target_": f"{SCHEDULERS}.ReduceLROnPlateau", "patience": 0, "threshold": 10.0}),
    ],
    ids=["cosine", "adamw", "onecycle", "balanced", "muon", "plateau"],
)
def test_stopped_at_every_step_equals_uninterrupted(tmp_path, monkeypatch, optim):
    config = config_in(tmp_path / "whole", optim=optim)
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    for step in range(1, 9):
        interrupted = stopped(broken, monkeypatch, 1)
        assert interrupted.code == 128 + signal.SIGTERM
        epoch = (step - 1) // 4 + 1
        assert str(interrupted).endswith(f"interrupted; the same command goes on from epoch {epoch}")
        assert read_runs(broken.results_dir).loc[0, ["status", "epochs_done"]].tolist() == ["interrupted", epoch - 1]
    assert train(broken, run_of(broken), print).status == "finished"
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))


@pytest.mark.parametrize("full_rank_epochs", [0, 1])
def test_cores_that_learn_at_rates_of_their_own_in_any_order(tmp_path, monkeypatch, full_rank_epochs):
    optim = OptimConfig({"_target_": "torch.optim.AdamW"}, core_lr="balanced")
    changes = {"method": MethodConfig("ht"), "rank": 4, "optim": optim, "full_rank_epochs": full_rank_epochs}
    config = config_in(tmp_path / "whole", **changes)  # cores whose names are in another order than in the graph
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    for _ in range(4):
        stopped(broken, monkeypatch, 2)
    train(broken, run_of(broken), print)
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))


def in_pieces(config, place, monkeypatch):
    """The same run in another place, stopped five times, a step after each start; its configuration and its summary."""
    broken = replace(config, results_dir=str(place))
    for _ in range(5):
        stopped(broken, monkeypatch, 1)
    return broken, train(broken, run_of(broken), print)


def test_a_run_that_is_cut_to_a_budget_of_macs_resumes_exactly(tmp_path, monkeypatch):
    rates = Rates(pointwise=1e14, grouped=1e10, depthwise=1e9, product=1e14, memory=1e13, call=1e-6)  # of no CPU
    monkeypatch.setattr("tdcompress.train.network.device_rates", lambda *device: rates)
    config = config_in(tmp_path / "whole", method=MethodConfig("tr"), rank="macs:0.4", epochs=6, full_rank_epochs=1)
    config = replace(config, batch_size=100)  # a step is an epoch
    whole = train(config, run_of(config), print)
    assert len(whole.ranks) > 1 and whole.macs == pytest.approx(0.4 * whole.dense_macs, rel=0.02)
    broken, ended = in_pieces(config, tmp_path / "broken", monkeypatch)
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))
    assert [layer["plan"] for layer in ended.layers] == [layer["plan"] for layer in whole.layers]


def test_a_run_whose_ranks_are_cut_resumes_exactly(tmp_path, monkeypatch):
    method = MethodConfig("tt", layout="split")  # components of few entries, so that the target is met
    config = validating(config_in(tmp_path / "whole", method=method, rank="adaptive:8x", epochs=3, batch_size=40))
    config = replace(config, full_rank_epochs=0, optim=replace(config.optim, core_lr="balanced"))
    lines = []
    whole = train(config, run_of(config), lines.append)
    assert sum(line.startswith("cut to ") for line in lines) == 1  # after the first of three
    assert whole.compression_ratio == pytest.approx(8, rel=0.05)
    broken, ended = in_pieces(config, tmp_path / "broken", monkeypatch)
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))
    assert [layer["ranks"] for layer in ended.layers] == [layer["ranks"] for layer in whole.layers]
    states = [checkpoint.load(run_of(one).directory, print)["best"] for one in (config, broken)]
    assert states[0]["epoch"] == states[1]["epoch"] == whole.best_epoch > 1  # before that it was larger
    assert all(torch.equal(weight, states[1]["model"][name]) for name, weight in states[0]["model"].items())


def test_a_resumed_run_keeps_its_measured_plans(tmp_path, monkeypatch):
    config = config_in(tmp_path, method=MethodConfig("tt", plan="measure", layout="channels"))
    ticks = iter(range(10_000))
    monkeypatch.setattr(planning, "seconds", lambda step, device: 1.0 / (1 + next(ticks)))  # the last looks fastest
    stopped(config, monkeypatch, 2)  # the first is for measuring
    saved = json.loads((run_of(config).directory / "summary.json").read_text())["layers"]
    monkeypatch.setattr(planning, "seconds", None)  # measured once is enough
    assert train(config, run_of(config), print).layers == saved
    assert any(layer["plan"].startswith("(") for layer in saved)  # a merge first, which the model had not chosen


def test_plans_are_measured_again_where_ranks_are_cut(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "tdcompress.train.run.tune", lambda model, *_: measured.append(count(model, (1, 16, 16))["macs"])
    )
    method = MethodConfig("tt", plan="measure", layout="channels")
    config = config_in(tmp_path, method=method, rank="5x", epochs=6, full_rank_epochs=2)
    whole = train(config, run_of(config), print)
    assert len(measured) == 3 and measured == sorted(measured)[::-1] and measured[-1] == whole.macs < measured[0]


def test_exports_of_a_run_that_has_ended_are_known_still_where_its_tables_are_made_again(tmp_path):
    config = config_in(tmp_path)
    train(config, run_of(config), print)
    run_of(config).add_export({"format": "onnx", "bytes": 9})
    (run_of(config).directory / "metrics.csv").unlink()
    assert train(config, run_of(config), print).exports == [{"format": "onnx", "bytes": 9}]


def test_stopped_while_testing_and_at_the_very_end(tmp_path, monkeypatch):
    config = validating(config_in(tmp_path / "whole"))
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    for batch in (1, 2):  # of the validation images, of the test
        assert stopped(broken, monkeypatch, batch, shuffle=False, number=signal.SIGINT).code == 130

    def log(line):
        if line.startswith("epoch 2"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="finished"):  # so that a sweep ends too
        train(broken, run_of(broken), log)
    assert run_of(broken).summary().status == "finished"
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))


def test_signal_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, passed on by a parent process
        assert stop.number == signal.SIGINT
        stop._since -= 2
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# Runs train in forked children, each broken at another one of the moments at which the disk changes: killed, or told
# that the disk is full. What they share are the imports, which take far longer than the run. One thread: threads of
# torch do not survive a fork.
BROKEN = """
import errno, gc, os, signal, sys, pickle
from dataclasses import replace
from tdcompress.device.files import RunError
from tdcompress.results.run import Run
from tdcompress.train.run import train
import torch
from tdcompress.data.sources import DATASETS, load
torch.set_num_threads(1)
gc.freeze()
calls = 0

def breaking(function, moment, how):
    def call(*args):
        global calls
        calls += 1
        if calls == moment:
            if how == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if function is real_fsync and not os.path.isdir(f"/proc/self/fd/{args[0]}"):
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)  # half of it got to the disk
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return call

real_fsync, real_replace, real_unlink = os.fsync, os.replace, os.unlink

def child(config, directory, moment, how):
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    os.fsync, os.replace = breaking(real_fsync, moment, how), breaking(real_replace, moment, how)
    if how == "killed":  # removing needs no room
        os.unlink = breaking(real_unlink, moment, how)
    try:
        train(config, Run(directory), lambda line: None)
    except RunError as error:
        os._exit(3 if str(error).startswith("cannot write ") and "No space left on device" in str(error) else 4)
    os._exit(0)

asked = pickle.load(sys.stdin.buffer)
images = load(asked[0][0].dataset)
images.test_images, images.test_labels = images.test_images[:60], images.test_labels[:60]
DATASETS["digits"] = replace(DATASETS["digits"], load=lambda config: images)
for config, directory, moment, how in asked:
    print(child(config, directory, moment, how) >> 8 * (how == "full"), child(config, directory, 0, how))
"""


# Killed: 6 changes before the first epoch, 9 after it, 11 after the second (a checkpoint to keep, and then to remove).
# On a full disk: 10 more, of the switch to cores between the two.
@pytest.mark.parametrize(
    ("how", "code", "moments"),
    [("killed", 9, [1, 5, 7, 8, 9, 12, 15, *range(16, 27)]), ("full", 3, [1, 10, 16, 17, 18, 20, 26, 31])],
)
def test_broken_at_any_write_equals_uninterrupted(tmp_path, how, code, moments):
    config = config_in(tmp_path, arch=ArchConfig("lenet", width=0.1), optim=OptimConfig(SGD, COSINE, "step"))
    if how == "killed":  # at a rate at which the first epoch is the best, so that its weights have to be kept
        config, writes = validating(replace(config, lr=2.0)), 27
    else:
        optim = replace(config.optim, core_lr="balanced")
        config, writes = replace(config, rank="6x", full_rank_epochs=1, optim=optim), 37
    runs = {moment: Run(tmp_path / f"runs/digits/lenet/{moment}/seed0") for moment in (0, *moments, writes)}
    asked = pickle.dumps([(config, run.directory, moment, how) for moment, run in runs.items()])
    done = subprocess.run([sys.executable, "-c", BROKEN], input=asked, capture_output=True, timeout=120)
    expected = ["0 0", *[f"{code} 0"] * len(moments), "0 0"]  # the last moment never comes
    assert done.stdout.decode().splitlines() == expected, done.stderr.decode()
    whole = checkpoint.load(runs[0].directory, print)
    for moment, run in runs.items():
        assert metrics(run).equals(metrics(runs[0])), moment
        assert run.summary().status == "finished"
        assert {path.name for path in run.directory.iterdir()} == LEFT
        state = checkpoint.load(run.directory, print)
        assert (state["epoch"], state["phase"]) == (2, "cores")
        assert all(torch.equal(weight, whole["model"][name]) for name, weight in state["model"].items())
        assert torch.equal(state["random"][0]["cpu"], whole["random"][0]["cpu"])
        if how == "killed":
            assert state["best"]["epoch"] == whole["best"]["epoch"] == run.summary().best_epoch == 1
            assert all(torch.equal(weight, whole["best"]["model"][k]) for k, weight in state["best"]["model"].items())


def test_a_damaged_checkpoint_costs_an_epoch_and_no_more(tmp_path, monkeypatch):
    config = config_in(tmp_path / "whole")
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    run = run_of(broken)
    stopped(broken, monkeypatch, 6)
    newest = run.directory / checkpoint.NAME
    newest.write_bytes(newest.read_bytes()[:-100])
    (run.directory / "metrics.csv").write_text("epoch,lr\n1,0.0")
    (run.directory / "summary.json").write_text("{")
    lines = []
    train(broken, run, lines.append)
    assert any("damaged" in line for line in lines)
    assert any("going on from epoch 2, step 1" in line for line in lines)
    assert metrics(run).equals(metrics(run_of(config)))


def test_a_checkpoint_of_another_network_is_refused(tmp_path, monkeypatch):
    config = config_in(tmp_path)
    run = run_of(config)
    stopped(config, monkeypatch, 2)
    state = checkpoint.load(run.directory, print)
    weights = dict(state["model"])
    checkpoint.save(run.directory, state | {"model": {name: weights[name] for name in list(weights)[1:]}})
    with pytest.raises(RunError, match="does not fit"):
        train(config, run, print)
    checkpoint.save(run.directory, state | {"config": state["config"] | {"lr": 1.0}})
    with pytest.raises(RunError, match="another configuration"):
        train(config, run, print)


def test_the_weights_of_a_checkpoint_may_lie_otherwise(tmp_path, monkeypatch):
    config = config_in(tmp_path / "whole")
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    stopped(broken, monkeypatch, 5)
    state = checkpoint.load(run_of(broken).directory, print)
    held = [state["model"], *state["optimizer"]["state"].values()]
    for values in held:
        values |= {key: value.mT.contiguous().mT for key, value in values.items() if value.dim() > 1}
    assert all(any(not value.is_contiguous() for value in values.values()) for values in (held[0], held[1]))
    checkpoint.save(run_of(broken).directory, state)
    assert train(broken, run_of(broken), print).status == "finished"
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))
    ended = [checkpoint.load(run_of(one).directory, print)["model"] for one in (config, broken)]
    assert all(torch.equal(value, ended[1][name]) for name, value in ended[0].items())
