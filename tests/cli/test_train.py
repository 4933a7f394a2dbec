"""One training from the command line: a whole one of each format, and one whose reader leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tdcompress.cli.shared.jobs import asked, job_of
from tdcompress.cli.train import following
from tdcompress.results.record import Summary
from tdcompress.tensor.formats import FORMATS
from tdcompress.train.launch.launchers import LAUNCHERS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("method", sorted(FORMATS))
def test_each_format_learns_the_digits(tdc, tmp_path, method):
    code, out, err = tdc(
        f"train method={method} rank=reference arch.width=0.5 epochs=3 batch_size=50 optim=cosine lr=0.1"
    )
    assert (code, err) == (0, "")
    (path,) = tmp_path.glob("results/runs/digits/lenet/*/seed0/summary.json")
    summary = json.loads(path.read_text())
    assert summary["status"] == "finished" and summary["method"] == method
    assert summary["test_accuracy"] >= 0.9
    assert str(path.parent.relative_to(tmp_path)) in out
    assert (path.parent / ".hydra" / "overrides.yaml").read_text().startswith(f"- method={method}\n")
    assert len((path.parent / "metrics.csv").read_text().splitlines()) == 4


def test_what_is_fine_tuned_is_cut_no_further(tdc, tmp_path):
    words = "train epochs=4 dataset.limit=100 arch.width=0.25 rank=adaptive:5x full_rank_epochs=0"
    assert tdc(words)[0] == 0
    (run,) = tmp_path.glob("results/runs/*/*/*/seed0")
    code, out, err = tdc(f"train init_from={run} epochs=2 lr=0.01")
    assert (code, err) == (0, "") and "cut to" not in out
    code, _, err = tdc(f"train init_from={run} epochs=2 rank=adaptive:5x")
    assert code == 2 and "was made with rank=5x, not adaptive:5x; leave method and rank to it" in err
    before, after = (
        json.loads(path.read_text()) for path in sorted(tmp_path.glob("results/runs/*/*/*/*/summary.json"))
    )
    assert before["parameters"] == after["parameters"] and {before["rank"], after["rank"]} == {"adaptive:5x", "5x"}


def test_a_run_ends_by_naming_its_folder_and_to_people_what_is_next(tdc, tmp_path, monkeypatch):
    words = "train epochs=1 dataset.limit=100 arch.width=0.25 device=cpu rank=2 'results_dir=my results'"
    code, out, _ = tdc(words)
    (run,) = tmp_path.glob("my results/runs/*/*/*/seed0")
    assert code == 0 and out.splitlines()[-1] == str(run.relative_to(tmp_path))  # which scripts read
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, _ = tdc(words)
    assert code == 0 and out.splitlines()[-2:] == [
        "next: tdc plot 'results_dir=my results', tdc report 'results_dir=my results'",
        f"      tdc export 'run={run.relative_to(tmp_path)}' format=onnx",
    ]


def test_what_is_next_is_said_of_runs_that_finished():
    done, broken = Summary("finished"), Summary("diverged")
    assert following({Path("a"): done, Path("b"): done}, "results") == ["next: tdc plot, tdc report"]
    assert following({Path("a"): done, Path("b"): broken}, "results")[1:] == ["      tdc export run=a format=onnx"]
    assert following({Path("b"): broken}, "results") == []


def test_one_run_is_submitted_too(tdc, tmp_path, monkeypatch):
    given = []
    monkeypatch.setitem(LAUNCHERS, "slurm", lambda starts, jobs, settings, sweep: given.append((jobs, settings)))
    assert tdc("train launcher=slurm launcher.partition=gpu rank=4") == (0, "", "")
    ((jobs, settings),) = given
    assert [job.name for job in jobs] == ["lenet tt 4 seed 0"] and (settings.name, settings.partition) == (
        "slurm",
        "gpu",
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = tdc("train launcher=local")
    assert code == 2 and "launcher=local starts processes of its own, and so does torchrun" in err
    assert not any(tmp_path.iterdir())


def test_a_cluster_that_refuses_one_run_is_told_in_a_line(tdc, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    code, _, err = tdc("train launcher=slurm launcher.partition=nothing rank=4")
    assert code == 2 and err.splitlines()[-1] == "tdc: launcher=slurm: invalid partition"


def test_a_network_of_one_axis_is_trained_shown_and_exported(tdc, tmp_path):
    (tmp_path / "one_axis.py").write_text(
        "from torch import nn\n"
        "def net(in_channels, classes, image_size):\n"
        "    layers = nn.Conv1d(in_channels, 8, 9, stride=4), nn.ReLU(), nn.Conv1d(8, 16, 5, stride=4, padding=2)\n"
        "    return nn.Sequential(nn.Flatten(2), *layers, nn.Flatten(), nn.Linear(16 * 49, classes))\n"
    )
    words = "'arch.target={_target_: one_axis.net}' method=tt rank=4"
    code, _, err = tdc(f"train {words} epochs=1 dataset.limit=200")
    assert (code, err) == (0, "")
    (run,) = tmp_path.glob("results/runs/digits/one_axis.net/*/seed0")
    layers = {layer["name"]: layer for layer in json.loads((run / "summary.json").read_text())["layers"]}
    assert layers["3"]["cores"] == {"core1": [8, 4], "core2": [4, 5, 4], "core3": [4, 16]}
    assert layers["3"]["dense_macs"] == 49 * 8 * 16 * 5
    assert tdc(f"show {words}")[0] == 0
    code, _, err = tdc(f"export run={run} format=torch")
    assert (code, err) == (0, "") and (run / "model.pt2").exists()


@pytest.mark.parametrize(
    ("name", "made", "said"),
    [
        ("few", "nn.Sequential(nn.Flatten(), nn.Linear(784, 5))", "gives scores (1, 5) for one image, not (1, 10)"),
        ("two", "nn.Sequential(nn.Flatten(1, 2), nn.LSTM(28, 10))", "gives a tuple for one image, not (1, 10)"),
        ("odd", "nn.Linear(9, 10)", "cannot take an image (1, 28, 28): mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_what_is_no_network_for_these_images_is_told_in_a_line(name, made, said, tdc, tmp_path):
    (tmp_path / f"{name}_net.py").write_text(f"from torch import nn\ndef net(**sizes):\n    return {made}\n")
    words = f"method=dense,tt 'arch.target={{_target_: {name}_net.net}}' dataset.limit=60 epochs=1 launcher=basic"
    code, _, err = tdc(f"train -m {words}")
    assert code == 2 and err.count(f"arch.target {said}") == 2 and len(err.splitlines()) == 3


def test_what_was_held_out_is_held_out_again(tdc, tmp_path):
    """Else the network would be chosen by images that it was trained on."""
    words = "dataset.limit=200 arch.width=0.25 epochs=1"
    assert tdc(f"train method=dense seed=3 dataset.validation=0.2 {words}")[0] == 0
    (run,) = tmp_path.glob("results/runs/digits/lenet/dense-*/seed3")
    for more, seed, leak in (
        ("", 3, False), ("dataset.validation=0.1", 3, False), ("dataset.validation=0.3", 3, True),
        ("dataset.validation_seed=5", 5, False), ("dataset.limit=150", 3, True), ("dataset.validation=0", None, False),
    ):  # fmt: skip
        jobs = asked(["method=tt", "rank=2", "seed=0", f"init_from={run}", *more.split()], job_of)
        assert [job.get().config.dataset.validation_seed for job in jobs] == [seed]
        code, out, err = tdc(f"show method=tt rank=2 seed=0 init_from={run} {more}")
        assert code == 0 and ("was trained on images that are held out now" in out + err) == leak
    code, out, _ = tdc(f"train -m method=dense seed=3,4 init_from={run} epochs=1 lr=1e-9")
    told = [float(found) for found in re.findall(r"validation ([0-9.]+)%", out)]
    assert code == 0 and len(told) == 2 and told[0] == told[1]


def test_a_precision_that_a_run_began_with_is_the_same_run(tdc, tmp_path):
    words = "dataset.limit=100 arch.width=0.25 epochs=1 rank=2"
    assert tdc(f"train {words}")[0] == 0
    (run,) = tmp_path.glob("results/runs/digits/lenet/tt-*/seed0")
    precision = json.loads((run / "summary.json").read_text())["precision"]
    code, out, _ = tdc(f"train {words} precision={precision}")
    assert code == 0 and "not run again" in out
    other = {"bf16": "fp32", "fp32": "bf16"}[precision]
    (job,) = asked([*words.split(), f"precision={other}"], job_of)
    assert job.get().directory.resolve() != run


def test_a_limit_above_what_there_is_is_refused(tdc):
    code, _, err = tdc("train dataset.limit=5000 epochs=1")
    assert code == 2 and "dataset.limit=5000 is more than the 1,433 training images that there are" in err


def test_a_reader_that_leaves_is_no_error(tmp_path):
    words = [sys.executable, "-m", "tdcompress", "train", "dataset.limit=100", "arch.width=0.25", "epochs=1000"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_runs_of_ones_own_network_and_data_are_one_and_are_gone_on_from(tdc, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from tdcompress.config.schema import DatasetConfig\n"
        "from tdcompress.data.sources import load\n"
        "def net(in_channels, classes, image_size, width):\n"
        "    sides = image_size**2 * in_channels\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(sides, 64), nn.ReLU(), nn.Linear(64, width),\n"
        "                         nn.ReLU(), nn.Linear(width, classes))\n"
        "def few():\n"
        "    return load(DatasetConfig('digits'))\n"
    )
    for group, lines in (
        ("arch", "target: {_target_: mine.net, width: 48}"),
        ("dataset", "target: {_target_: mine.few}"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(f"defaults: [schema]\nname: mine\n{lines}\n")
    more = "method=dense epochs=1 lr=0.1"
    own = "'arch.target={_target_: mine.net, width: 48}' 'dataset.target={_target_: mine.few}'"
    for words in (f"--config-dir=conf arch=mine dataset=mine {more}", f"arch=lenet5 {own} {more}"):
        code, _, err = tdc(f"train {words}")
        assert (code, err) == (0, "")
        (run,) = tmp_path.glob("results/runs/*/*/dense*/seed0")
    assert run.relative_to(tmp_path).as_posix().startswith("results/runs/mine.few/mine.net/dense")
    code, out, err = tdc(f"train init_from={run} method=tt rank=2x epochs=1")
    assert (code, err) == (0, "") and "mine.net tt" in out
    code, out, err = tdc(f"compress checkpoint={run} method=tt rank=2x out=small.pt")
    assert (code, err) == (0, "")
