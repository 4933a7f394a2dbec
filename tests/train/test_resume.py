"""A run, broken and resumed in every way, ends as if nothing had happened."""

import gc
import json
import pickle
import signal
import subprocess
import sys
import weakref
from dataclasses import replace

import pandas
import pytest
import torch

from tdcompress.compression import plans as planning
from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.datasets import DeviceDataset
from tdcompress.data.sources import DATASETS, load
from tdcompress.device.files import RunError
from tdcompress.models import build as archs
from tdcompress.results.identity import run_directory
from tdcompress.results.record import METRICS
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.train import checkpoint
from tdcompress.train import watch as profiler
from tdcompress.train import watch as progress
from tdcompress.train.interrupt import Interrupted, StopSignals
from tdcompress.train.optim import build_optimizer, build_scheduler
from tdcompress.train.run import train

SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9, "weight_decay": 5e-4}
SCHEDULERS = "torch.optim.lr_scheduler"
STEPLR = {"_target_": f"{SCHEDULERS}.StepLR", "step_size": 1, "gamma": 0.5}
COSINE = {"_target_": f"{SCHEDULERS}.CosineAnnealingLR", "T_max": "steps"}
LEFT = {"checkpoint.pt", "lock", "metrics.csv", "summary.json"}
CLOCKS = ["train_seconds", "test_seconds", "images_per_second", "peak_memory_mb"]


@pytest.fixture(scope="module", autouse=True)
def small_images(one_thread):
    """Few images, read once."""
    images = load(DatasetConfig("digits", image_size=16, limit=100))
    images = replace(images, test_images=images.test_images[:60], test_labels=images.test_labels[:60])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=lambda config: images))
        yield


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
    assert table.drop(columns="degeneracy").notna().all(axis=None)
    assert table.degeneracy.isna().all()  # no hyperedge in this format
    assert (table[CLOCKS] > 0).all(axis=None)
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


@pytest.mark.parametrize(
    "optim",
    [
        OptimConfig(SGD, COSINE, "step"),
        OptimConfig({"_target_": "torch.optim.AdamW"}, {"_target_": f"{SCHEDULERS}.MultiStepLR", "milestones": [1]}),
        OptimConfig(SGD, {"_target_": f"{SCHEDULERS}.OneCycleLR", "max_lr": "lr", "total_steps": "steps"}, "step"),
        OptimConfig(SGD, {"_target_": f"{SCHEDULERS}.ReduceLROnPlateau", "patience": 0, "threshold": 10.0}),
    ],
    ids=["cosine", "adamw", "onecycle", "plateau"],
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


def test_a_run_whose_ranks_are_cut_resumes_exactly(tmp_path, monkeypatch):
    method = MethodConfig("tt", layout="split")  # components of few entries, so that the target is met
    config = config_in(tmp_path / "whole", method=method, rank="adaptive:8x", epochs=3, batch_size=50)
    lines = []
    whole = train(config, run_of(config), lines.append)
    assert sum(line.startswith("cut to ") for line in lines) == 1  # after the first of three
    assert whole.compression_ratio == pytest.approx(8, rel=0.05)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    for _ in range(5):
        stopped(broken, monkeypatch, 1)
    ended = train(broken, run_of(broken), print)
    assert metrics(run_of(broken)).equals(metrics(run_of(config)))
    assert [layer["ranks"] for layer in ended.layers] == [layer["ranks"] for layer in whole.layers]


def test_a_resumed_run_keeps_its_measured_plans(tmp_path, monkeypatch):
    config = config_in(tmp_path, method=MethodConfig("tt", plan="measure", layout="channels"))
    ticks = iter(range(10_000))
    monkeypatch.setattr(planning, "seconds", lambda step, device: 1.0 / (1 + next(ticks)))  # the last looks fastest
    stopped(config, monkeypatch, 2)  # the first is for measuring
    saved = json.loads((run_of(config).directory / "summary.json").read_text())["layers"]
    monkeypatch.setattr(planning, "seconds", None)  # measured once is enough
    assert train(config, run_of(config), print).layers == saved
    assert any(layer["plan"].startswith("(") for layer in saved)  # a merge first, which the model had not chosen


def test_stopped_while_testing_and_at_the_very_end(tmp_path, monkeypatch):
    config = config_in(tmp_path / "whole")
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    assert stopped(broken, monkeypatch, 1, shuffle=False, number=signal.SIGINT).code == 130

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
import errno, os, signal, sys, pickle
from dataclasses import replace
from tdcompress.device.files import RunError
from tdcompress.results.run import Run
from tdcompress.train.run import train
import torch
from tdcompress.data.sources import DATASETS, load
torch.set_num_threads(1)
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


# 6 changes before the first epoch, 9 after it, 11 after the second (a checkpoint to keep, and then to remove).
@pytest.mark.parametrize(
    ("how", "code", "moments"),
    [("killed", 9, [1, 5, 7, 8, 9, 12, 15, *range(16, 27)]), ("full", 3, [1, 2, 7, 10, 16, 17, 18, 20, 23])],
)
def test_broken_at_any_write_equals_uninterrupted(tmp_path, how, code, moments):
    config = config_in(tmp_path, arch=ArchConfig("lenet", width=0.1), optim=OptimConfig(SGD, COSINE, "step"))
    runs = {moment: Run(tmp_path / f"runs/digits/lenet/{moment}/seed0") for moment in (0, *moments, 27)}
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
        assert state["epoch"] == 2
        assert all(torch.equal(weight, whole["model"][name]) for name, weight in state["model"].items())
        assert torch.equal(state["random"][0]["cpu"], whole["random"][0]["cpu"])


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


def test_a_busy_run_is_left_alone(tmp_path):
    config = config_in(tmp_path)
    with run_of(config).locked(), pytest.raises(RunError, match="another process works on"):
        train(config, run_of(config), print)


@pytest.mark.parametrize(("batch_size", "steps"), [(5, 5), (28, 2), (100, 1)])
def test_a_profile_is_a_table_and_a_trace_and_changes_no_number(tmp_path, monkeypatch, batch_size, steps):
    monkeypatch.setattr(profiler, "_ROWS", 1000)
    plain = config_in(tmp_path / "plain", batch_size=batch_size)
    train(plain, run_of(plain), print)
    config = replace(plain, profile=True, results_dir=str(tmp_path / "profile"))
    lines = []
    train(config, run_of(config), lines.append)
    assert metrics(run_of(config)).equals(metrics(run_of(plain)))
    (table,) = [line for line in lines if line.startswith("profile of")]
    assert table.startswith(f"profile of {steps} steps, trace in {run_of(config).directory / 'trace.json'}\n")
    rows = [line.split() for line in table.splitlines()]
    (fused,) = [row for row in rows if row[:1] == ["aten::_fused_sgd_"]]
    assert int(fused[-1]) == steps  # calls
    events = json.loads((run_of(config).directory / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "aten::_fused_sgd_" for event in events) == steps


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


def test_on_a_terminal_a_bar_is_drawn_and_every_step_taken(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PERIOD", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.bar(iter(range(5)), "epoch 1/2", 2, 7)) == list(range(5))
    assert "epoch 1/2" in capsys.readouterr().err
    monkeypatch.undo()
    steps = iter(range(5))
    assert progress.bar(steps, "", 0, 5) is steps


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
    with pytest.raises(RunError, match=rf"{asked}\), peak so far .* MB; use a smaller batch_size \(now 28\)") as told:
        train(config, run_of(config), print)
    assert "\n" not in str(told.value)
    assert read_runs(tmp_path).status.tolist() == ["interrupted"]
    gc.collect()
    assert networks[0]() is None  # though ``told`` is still there


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        (OptimConfig(), "optim.optimizer needs a _target_ such as torch.optim.SGD"),
        (OptimConfig({"_target_": "torch.optim.SDG"}), "cannot be imported"),
        (OptimConfig({"_target_": "nowhere.SGD"}), "cannot be imported"),
        (OptimConfig({**SGD, "colour": 1}), "optim.optimizer: .*colour"),
        (OptimConfig({**SGD, "momentum": -1}), "momentum"),
        (OptimConfig({"_target_": "builtins.list"}), "optim.optimizer"),
        (OptimConfig(SGD, {"_target_": "torch.optim.lr_scheduler.StepLR"}), "step_size"),
        (OptimConfig(SGD, STEPLR, "minute"), "known: "),
    ],
)
def test_optimizer_and_schedule_that_cannot_be(tmp_path, optim, message):
    config = config_in(tmp_path / "results", optim=optim)
    with pytest.raises(ConfigError, match=message) as error:
        train(config, run_of(config), print)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "results").exists()


def test_the_first_step_does_not_wait_for_the_compiler():
    code = """if True:
        import sys, torch
        from tdcompress.config.schema import OptimConfig, TrainConfig
        from tdcompress.train.optim import build_optimizer
        weight = torch.nn.Parameter(torch.ones(2))
        config = TrainConfig(optim=OptimConfig({"_target_": "torch.optim.AdamW"}))
        optimizer = build_optimizer(config, [weight], torch.device("cpu"))
        weight.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
        print(weight.tolist() != [1, 1], "torch._dynamo" in sys.modules)
    """
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True False\n"


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_optimizer_is_the_one_of_torch(name):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2)]
    config = TrainConfig(optim=OptimConfig({"_target_": f"torch.optim.{name}", "weight_decay": 0.1}), lr=0.1)
    optimizers = [
        build_optimizer(config, weights[:1], torch.device("cpu")),
        getattr(torch.optim, name)(weights[1:], lr=0.1, weight_decay=0.1, fused=True),
    ]
    for weight, optimizer in zip(weights, optimizers, strict=True):
        for _ in range(5):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
    assert isinstance(optimizers[0], getattr(torch.optim, name))
    assert torch.equal(*weights)


def test_the_schedule_knows_the_length_of_the_run():
    config = TrainConfig(optim=OptimConfig(SGD, COSINE, "step"), epochs=7, lr=0.2)
    optimizer = build_optimizer(config, [torch.nn.Parameter(torch.zeros(2))], torch.device("cpu"))
    assert optimizer.param_groups[0]["fused"]
    assert optimizer.param_groups[0]["lr"] == 0.2
    assert build_scheduler(config, optimizer, steps_per_epoch=11).T_max == 77
    assert build_scheduler(replace(config, optim=OptimConfig(SGD)), optimizer, 11) is None


def test_tensorboard_shows_what_metrics_csv_holds(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_in(tmp_path, tensorboard=True)
    run = run_of(config)
    train(config, run, log=lambda line: None)
    events = EventAccumulator(str(run.directory / "tensorboard")).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("test_accuracy")]
    assert [step for step, _ in seen] == [1, 2]
    assert [value for _, value in seen] == pytest.approx(metrics(run).test_accuracy.tolist(), rel=1e-6)
