"""Runs and their epochs read back from disk, damaged ones too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs import BASELINE, make, row, write_run

from tdcompress.config.schema import DatasetConfig, MethodConfig
from tdcompress.results.identity import plain
from tdcompress.results.record import METRICS
from tdcompress.results.rows import read_metrics, read_runs
from tdcompress.results.run import Run
from tdcompress.tensor.errors import ConfigError


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
    with pytest.raises(ConfigError, match=r"^seed=one is not a number"):
        read_runs(tmp_path, seed="one")
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


def test_what_a_summary_does_not_say_the_path_does_and_no_configuration_is_broken(tmp_path):
    edits = [{name: None} for name in ("dataset", "arch", "method", "seed")] + [{"seed": "0"}]
    broken = [{"config": {"dataset": "mnist"}}, {"config": {"method": 3}}]
    for seed, edit in enumerate([*edits, *broken]):
        directory = tmp_path / f"runs/mnist/lenet/tt-8/seed{seed}"
        text = directory / "summary.json"
        write_run(directory)
        text.write_text(json.dumps(json.loads(text.read_text()) | edit))
    runs = read_runs(tmp_path)
    assert runs.status.tolist() == ["finished"] * len(edits) + ["broken"] * len(broken)
    assert runs.seed.tolist() == list(range(len(runs)))
    assert set(zip(runs.dataset, runs.arch, runs.method, strict=True)) == {("mnist", "lenet", "tt")}


def test_numbers_that_are_none_are_not_known(tmp_path):
    run = make(tmp_path)
    text = run.directory / "summary.json"
    summary = json.loads(text.read_text())
    summary |= {"device": None, "exports": [{"format": "onnx", "bytes": "many", "ms": {"1": "few"}}]}
    summary["config"] |= {"lr": "0.1", "batch_size": None}
    text.write_text(json.dumps(summary))
    (found,) = read_runs(tmp_path).to_dict("records")
    assert found["status"] == "finished" and found["device"] == "" and found["exported"] == "onnx"
    assert all(found[key] is None for key in ("lr", "batch_size", "exported_bytes", "exported_ms"))


def test_a_folder_of_no_seed_parts_no_others(tmp_path):
    for seed in range(2):
        start = f"{tmp_path}/runs/mnist/lenet/dense/seed{seed}"
        make(tmp_path, seed=seed, init_from=start)
    together = read_runs(tmp_path).setting.tolist()
    (tmp_path / "runs/mnist/lenet/tt-10x/seed_old").mkdir(parents=True)
    runs = read_runs(tmp_path)
    assert runs[runs.status == "finished"].setting.tolist() == together and len(set(together)) == 1


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


def test_of_several_exported_files_a_row_tells_of_those_that_can_be_compared(tmp_path):
    files = {"onnx": 500, "torch": 300, "dense": 900}
    for seed, kinds in enumerate((["onnx"], ["onnx", "torch", "dense"], ["torch", "onnx"], ["dense"], [])):
        run = make(tmp_path, seed=seed)
        exports = [{"format": kind, "bytes": files[kind] + seed} for kind in kinds]
        run.write_summary(replace(run.summary(), exports=exports))
    for seed in range(3):  # of another data set, whose kind is another
        run = make(tmp_path, seed=seed, dataset=DatasetConfig("cifar10"))
        run.write_summary(replace(run.summary(), exports=[{"format": "torch", "bytes": 7}]))
    runs = read_runs(tmp_path, dataset="mnist")
    assert runs["exported"].tolist() == ["onnx", "onnx", "onnx", "dense", ""]
    assert runs["exported_bytes"].dropna().tolist() == [500, 501, 502, 903]
