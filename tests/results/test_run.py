"""What a run leaves on disk: names, locks, whole writes, and reading it all back."""

import fcntl
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig, validate
from tdcompress.device.files import RunError
from tdcompress.results.identity import differences, identity, plain, run_directory, typed
from tdcompress.results.record import METRICS, Epoch, Summary
from tdcompress.results.rows import read_metrics, read_runs
from tdcompress.results.run import Run
from tdcompress.tensor.errors import ConfigError
from tdcompress.train import checkpoint

BASELINE = TrainConfig(dataset=DatasetConfig("mnist"), arch=ArchConfig("vgg16"), method=MethodConfig("tt"), rank=8)


def row(epoch, **values):
    return replace(Epoch(epoch, *[0.1 + epoch] * (len(METRICS) - 1)), parameters=10 * epoch, macs=100, **values)


def write_run(directory, epochs=2, **values):
    dataset, arch, variant, seed = directory.parts[-4:]
    summary = Summary("finished", dataset, arch, variant.split("-")[0], "8", int(seed[4:]), epochs, epochs)
    run = Run(directory)
    run.write_summary(replace(summary, **{"test_accuracy": 0.9, **values}))
    run.write_metrics([row(epoch + 1) for epoch in range(epochs)])
    return run


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({}, "mnist/vgg16/tt-8/seed0"),
        ({"seed": 3}, "mnist/vgg16/tt-8/seed3"),
        ({"rank": "10x"}, "mnist/vgg16/tt-10x/seed0"),
        ({"rank": "params:120000"}, "mnist/vgg16/tt-params-120000/seed0"),
        ({"method": MethodConfig("tt", conv="cp")}, "mnist/vgg16/tt+cp_conv-8/seed0"),
        ({"method": MethodConfig("dense"), "rank": 5}, "mnist/vgg16/dense/seed0"),
        ({"device": "cuda", "dataset": DatasetConfig("mnist", root="/data")}, "mnist/vgg16/tt-8/seed0"),
    ],
)
def test_directory_follows_from_the_configuration(change, path):
    config = replace(BASELINE, **change)
    baseline = replace(BASELINE, method=MethodConfig(config.method.format))
    assert run_directory(config, baseline) == Path("results/runs") / path


def test_what_else_differs_is_hashed():
    optim = OptimConfig({"_target_": "a.B"})
    changes = ({}, {"lr": 0.1}, {"epochs": 3}, {"lr": 0.1, "epochs": 3}, {"optim": optim})
    names = {run_directory(replace(BASELINE, **change), BASELINE).parent.name for change in changes}
    assert len(names) == 5
    assert all(name == "tt-8" or (name.startswith("tt-8-") and len(name) == 13) for name in names)


def test_a_hybrid_of_dense_and_a_format_has_a_rank():
    config = replace(BASELINE, method=MethodConfig("dense", linear="tt"))
    assert run_directory(config, config).parent.name == "dense+tt_linear-8"


def test_own_loaders_and_models_are_named_by_their_path():
    config = replace(BASELINE, dataset=DatasetConfig(target={"_target_": "lab.data.street"}))
    assert run_directory(config, config).parts[2] == "lab.data.street"


NAMES = st.text(max_size=300) | st.text("./\\\0a", max_size=9)


@given(NAMES, NAMES, NAMES, NAMES, st.booleans())
def test_no_name_leads_out_of_the_results(dataset, arch, method, rank, own):
    data, network = DatasetConfig(dataset), ArchConfig(arch)
    if own:
        data, network = DatasetConfig(target={"_target_": dataset}), ArchConfig(target={"_target_": arch})
    config = TrainConfig(dataset=data, arch=network, method=MethodConfig(method), rank=rank)
    directory = run_directory(config, config)
    assert len(directory.parts) == 6
    assert directory.parts[:2] == ("results", "runs")
    for part in directory.parts[2:]:
        assert len(part) < 255
        assert re.fullmatch(r"[A-Za-z0-9_+=][A-Za-z0-9_.+=-]*", part)


def test_names_that_need_replacing_stay_apart():
    paths = {run_directory(replace(BASELINE, rank=rank), BASELINE) for rank in ("a/b", "a b", "a-b", "../a/b", "..")}
    assert len(paths) == 5


@pytest.mark.parametrize("name", ["image_folder", "video_folder"])
def test_a_folder_is_its_own_data_set(name):
    one, other = (replace(BASELINE, dataset=DatasetConfig(name, root=root)) for root in ("cats", "dogs"))
    assert differences(identity(plain(one)), identity(plain(other))) == {"dataset.root": ("cats", "dogs")}


def test_a_dense_run_is_one_whatever_its_method_says():
    dense = replace(BASELINE, method=MethodConfig("dense"))
    other = replace(dense, rank="10x", method=MethodConfig("dense", init="variance", decay="scaled", layout="split"))
    assert identity(plain(other)) == identity(plain(dense))
    partly = replace(dense, method=MethodConfig("dense", conv="tt", decay="scaled"))
    assert identity(plain(partly))["method"]["decay"] == "scaled"


def test_identity_ignores_where_and_fills_in_fields_of_later_versions():
    dataset = replace(BASELINE.dataset, root="/data", stream=True, workers=3)
    config = replace(BASELINE, results_dir="elsewhere", device="cpu", rank="8", dataset=dataset, profile=True)
    assert identity(plain(config)) == identity(plain(BASELINE))
    older = plain(BASELINE)
    del older["method"]["plan"], older["lr"]
    assert differences(identity(older), identity(plain(BASELINE))) == {}
    assert differences(identity(older), identity(plain(replace(BASELINE, lr=0.5)))) == {"lr": (BASELINE.lr, 0.5)}


@pytest.mark.parametrize(
    ("rank", "saved", "name"),
    [
        (8, 8, "tt-8"),
        ("8", 8, "tt-8"),
        ([4, 8], "4-8", "tt-4-8"),
        ("reference", "reference", "tt-reference"),
        ("10X", "10x", "tt-10x"),
        ("16.6x", "16.6x", "tt-16.6x"),
        ("params:1.2e5", "params:120000", "tt-params-120000"),
        ("macs:0.20", "macs:0.2", "tt-macs-0.2"),
        ("adaptive:10x", "adaptive:10x", "tt-adaptive-10x"),
    ],
)
def test_a_checked_rank_is_saved_as_a_number_or_text_and_read_again(rank, saved, name):
    layers = {"features.*": {"rank": [4, 8]}, "fc": {"rank": "reference", "layout": "split"}}
    baseline = replace(BASELINE, method=MethodConfig("tt", layers=layers))
    config = validate(replace(baseline, rank=rank))
    values = plain(config)
    assert values["rank"] == saved and type(values["rank"]) is type(saved)
    assert values["method"]["layers"] == layers  # as they were given: the hash of a directory goes by them
    assert plain(typed(values)) == values and typed(values) == config == pickle.loads(pickle.dumps(config))
    assert run_directory(config, baseline).parent.name == name
    assert run_directory(config, BASELINE).parent.name == f"{name}-8d0716ae"


def test_another_configuration_in_the_directory_is_refused(tmp_path):
    run = write_run(tmp_path / "runs/mnist/vgg16/tt-8/seed0", config=plain(BASELINE))
    assert run.ended(BASELINE).status == "finished"
    with pytest.raises(RunError, match=r"another configuration \(lr: 0.05 there, 0.1 asked\)"):
        run.ended(replace(BASELINE, lr=0.1))


def hold(directory):
    """A process that owns the run until its input closes."""
    code = """if True:
        import sys
        from tdcompress.results.run import Run
        with Run(sys.argv[1]).locked():
            print("own", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen([sys.executable, "-c", code, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"own\n"
    return process


def test_a_second_process_is_told_so_and_a_killed_one_frees_the_run(tmp_path):
    directory = tmp_path / "runs/mnist/vgg16/tt-8/seed0"
    write_run(directory, status="running")
    owner = hold(directory)
    try:
        assert read_runs(tmp_path).status.tolist() == ["running"]
        with pytest.raises(RunError, match="another process works on"), Run(directory).locked():
            pass
        with pytest.raises(RunError, match="another process works on"):
            Run(directory).refuse_busy()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    assert read_runs(tmp_path).status.tolist() == ["interrupted"]
    with Run(directory, {".hydra/config.yaml": "lr: 0.1\n"}).locked():
        assert (directory / ".hydra/config.yaml").read_text() == "lr: 0.1\n"


def test_a_reader_of_images_does_not_own_the_run_that_forked_it(tmp_path):
    into, out = os.pipe()
    with Run(tmp_path).locked():
        reader = os.fork()
        if not reader:
            os.write(out, b".")
            signal.pause()
    try:
        os.read(into, 1)
        Run(tmp_path).refuse_busy()
        with Run(tmp_path).locked():
            pass
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        os.close(into)
        os.close(out)


def test_reading_the_results_does_not_turn_a_starting_run_away(tmp_path):
    with open(tmp_path / "lock", "w") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(0.15, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
        with Run(tmp_path).locked():
            pass


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    for step in range(3):
        checkpoint.save(tmp_path, {"step": step, "weights": torch.full((1000,), float(step))})
    newest = tmp_path / checkpoint.NAME
    content = bytearray(newest.read_bytes())
    if damage == "missing":
        newest.unlink()
    else:
        content[len(content) // 2] ^= 1
        newest.write_bytes({"truncated": content[:500], "flipped": content, "empty": b""}[damage])
    lines = []
    assert checkpoint.load(tmp_path, lines.append)["step"] == 1
    assert "going on from the checkpoint before it" in lines[-1]
    checkpoint.save(tmp_path, {"step": 3})
    newest.write_bytes(b"")
    assert checkpoint.load(tmp_path, lines.append)["step"] == 1  # the damaged one was not kept in its place
    for path in tmp_path.glob("checkpoint*"):
        path.write_bytes(b"garbage")
    assert checkpoint.load(tmp_path, lines.append) is None


@pytest.mark.parametrize("kind", ["archive", "legacy", "pickle"])
def test_a_checkpoint_runs_no_code(tmp_path, kind):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    path, lines = tmp_path / checkpoint.NAME, []
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"step": Evil()}))
    else:
        torch.save({"step": Evil()}, path, _use_new_zipfile_serialization=kind == "archive")
    if kind == "archive":
        with pytest.raises(RunError, match="not loaded"):
            checkpoint.load(tmp_path, print)
    else:  # no file of ours was ever like that
        assert checkpoint.load(tmp_path, lines.append) is None
        assert len(lines) == 1 and "damaged" in lines[0]
    assert not (tmp_path / "evil").exists()


def test_a_full_disk_loses_nothing(tmp_path):
    checkpoint.save(tmp_path, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .*checkpoint\.pt"):
            checkpoint.save(tmp_path, {"weights": torch.zeros(100_000)})
        with pytest.raises(RunError, match="File too large"):
            Run(tmp_path).write_text("summary.json", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]
    assert checkpoint.load(tmp_path, print)["step"] == 1


def test_a_results_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(RunError, match="cannot make"), Run(tmp_path / "results/runs/a/b/c/seed0").locked():
        pass


@pytest.mark.parametrize("name", ["lock", "metrics.csv", "summary.json", ".hydra/config.yaml"])
def test_a_folder_where_a_file_should_be(tmp_path, name):
    (tmp_path / name / "mine").mkdir(parents=True)
    run = Run(tmp_path, {".hydra/config.yaml": "lr: 0.1\n"})
    with pytest.raises(RunError, match=r"cannot (make|write) .*: Is a directory") as error, run.locked():  # noqa: PT012
        run.write_metrics([row(1)])
        run.write_summary(Summary())
    assert "\n" not in str(error.value)
    assert (tmp_path / name / "mine").is_dir()
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def nobody():
    """Work without root's right to write everywhere, in a folder that everyone may read."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        if root:
            os.seteuid(65534)
        yield Path(folder)
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o755)


def test_without_permission_to_write(nobody):
    with pytest.raises(RunError, match=r"cannot make .*: Permission denied; .*give permission"), Run(nobody).locked():
        pass
    with pytest.raises(RunError, match=r"cannot write .*summary\.json: Permission denied"):
        Run(nobody).write_summary(Summary())
    assert not list(nobody.iterdir())


def test_runs_and_metrics_read_back_what_was_written(tmp_path):
    for method in ("cp-8", "tt-8"):
        for seed in (0, 1):
            write_run(tmp_path / f"runs/mnist/lenet/{method}/seed{seed}", epochs=2 + seed)
    write_run(tmp_path / "runs/mnist/lenet/dense/seed0", rank=None, epochs=0)
    runs = read_runs(tmp_path)
    assert runs[["method", "rank", "seed"]].values.tolist() == [
        ["cp", "8", 0], ["cp", "8", 1], ["dense", "", 0], ["tt", "8", 0], ["tt", "8", 1],
    ]  # fmt: skip
    assert read_runs(tmp_path, method=["cp", "dense"], seed=0).method.tolist() == ["cp", "dense"]
    assert read_runs(tmp_path, seed=["1", "2"], epochs="3.0", status="finished").method.tolist() == ["cp", "tt"]
    assert read_runs(tmp_path, seed="one").empty
    metrics = read_metrics(runs)
    assert len(metrics) == 10
    assert metrics.columns.is_unique
    mine = metrics[(metrics.method == "tt") & (metrics.seed == 1)]
    assert mine.epoch.tolist() == [1, 2, 3]
    assert mine.train_loss.tolist() == [0.1 + 1, 0.1 + 2, 0.1 + 3]
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        read_runs(tmp_path, colour="red")


def test_what_else_was_chosen_is_told_apart(tmp_path):
    changes = [{}, {"dataset": DatasetConfig("mnist", limit=12000)}, {"method": MethodConfig("tt", layout="split")}]
    changes += [{"lr": 0.5}, {"rank": 4}]
    for seed, change in enumerate(changes):
        config = replace(BASELINE, **change)
        write_run(
            tmp_path / f"runs/mnist/vgg16/tt-8-{seed}/seed{seed}", config=plain(config), versions={"torch": "2.0"}
        )
    runs = read_runs(tmp_path)
    assert runs.variant.tolist() == ["", "", "layout=split", "", ""]
    assert runs.setting.tolist() == ["", "dataset.limit=12000", "", "", ""]
    assert runs.lr.tolist() == [0.05, 0.05, 0.05, 0.5, 0.05]
    assert set(runs.torch) == {"2.0"}


def test_the_run_that_one_starts_from_is_named_wherever_the_results_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense, elsewhere = Path("results/runs/mnist/vgg16/dense/seed0"), "/weights/vgg16.pth"
    for seed, start in enumerate([str(dense.resolve()), str(dense), elsewhere]):
        config = plain(replace(BASELINE, init_from=start))
        write_run(tmp_path / f"results/runs/mnist/vgg16/tt-8-{seed}/seed{seed}", config=config)
    for results_dir in ("results", tmp_path / "results"):
        assert read_runs(results_dir).setting.tolist() == [f"init_from={path}" for path in (dense, dense, elsewhere)]


def test_no_results_are_an_empty_table(tmp_path):
    runs = read_runs(tmp_path / "nowhere")
    assert runs.empty
    assert "test_accuracy" in runs
    assert read_metrics(runs).empty


def test_damaged_runs_are_listed_and_harm_no_other(tmp_path):
    good, torn, list_, nan = (tmp_path / f"runs/mnist/lenet/tt-8/seed{seed}" for seed in range(4))
    for directory in (good, torn, list_, nan):
        write_run(directory)
    (torn / "summary.json").write_text('{"status": "fini')
    (torn / "metrics.csv").write_text((torn / "metrics.csv").read_text()[:-5])
    (list_ / "summary.json").write_text("[]")
    (list_ / "metrics.csv").write_text("colour,size\nred,1\n")
    Run(nan).write_metrics([row(1, test_loss=float("nan"))])
    (tmp_path / "runs/mnist/lenet/tt-8/seed9").mkdir()
    runs = read_runs(tmp_path)
    assert runs.status.tolist() == ["finished", "broken", "broken", "finished", "broken"]
    assert runs.seed.tolist() == [0, 1, 2, 3, 9] and runs.method.tolist() == ["tt"] * 5
    with pytest.warns(UserWarning, match="damaged"):
        metrics = read_metrics(runs)
    assert metrics.seed.tolist() == [0, 0, 3]


def test_many_runs_are_read(tmp_path):
    layers = [{"name": f"features.{index}", "plan": "x" * 300} for index in range(16)]
    text = json.dumps({"dataset": "mnist", "status": "finished", "layers": layers})
    csv = "\n".join([",".join(METRICS), *(",".join(["3"] * len(METRICS)) for _ in range(10))]) + "\n"
    for number in range(1000):
        directory = tmp_path / f"runs/mnist/lenet/tt-{number // 5}/seed{number % 5}"
        directory.mkdir(parents=True)
        (directory / "summary.json").write_text(text)
        (directory / "metrics.csv").write_text(csv)
    assert len(read_metrics(read_runs(tmp_path))) == 10_000


def test_where_a_lock_cannot_be_looked_at_a_run_is_what_it_says(tmp_path, monkeypatch):
    for seed, status in enumerate(("running", "finished", "interrupted")):
        write_run(tmp_path / f"runs/mnist/lenet/tt-8/seed{seed}", status=status)
    (tmp_path / "runs/mnist/lenet/tt-8/seed9").mkdir()
    monkeypatch.setattr("tdcompress.results.rows.held", lambda directory: None)
    assert read_runs(tmp_path).status.tolist() == ["running", "finished", "interrupted", "broken"]


def test_reading_results_needs_no_torch():
    code = "import sys, tdcompress.results.run; print({'torch', 'pandas', 'omegaconf'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
