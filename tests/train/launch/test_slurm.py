"""Sweeps as jobs of a real Slurm, where one runs (scripts/slurm_node.sh start)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest
from submitit.core.utils import FailedSubmissionError
from training import config_in, run_of

from tdcompress.config.schema import LauncherConfig
from tdcompress.results.rows import read_runs
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.launch.job import Job
from tdcompress.train.launch.launchers import launch

SMALL = ["dataset.limit=100", "arch.width=0.25", "launcher=slurm", "launcher.jobs=2", "launcher.cpus=1"]
NETWORKS = """
import os, signal

def killed(**sizes):
    os.kill(os.getpid(), signal.SIGKILL)

def raises(**sizes):
    raise RuntimeError("no such layer")
"""


def has_slurm():
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo", "-h"], capture_output=True).stdout != b""


needs_slurm = pytest.mark.skipif(not has_slurm(), reason="no Slurm: scripts/slurm_node.sh start")


def sweep(*words, path=None):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", os.getcwd(), *sys.path])}
    if path is not None:
        environment["PATH"] = path
    command = [sys.executable, "-m", "tdcompress", "train", "-m", *words, *SMALL]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = sweep("seed=0,1", path=os.path.dirname(sys.executable))
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.splitlines()[-1] == "tdc: launcher=slurm: there is no srun here; use a login node, or launcher=local"


class Executor:
    """What ``submitit.SlurmExecutor`` is told, up to the first job."""

    told: ClassVar[dict] = {}

    def __init__(self, folder, max_num_timeout):
        self.told |= {"folder": str(folder), "max_num_timeout": max_num_timeout}

    def update_parameters(self, **words):
        self.told |= words

    def batch(self):
        raise FailedSubmissionError("enough")


def test_what_is_asked_of_the_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr("submitit.SlurmExecutor", Executor)
    asked = {"jobs": 3, "cpus": 5, "gpus": 2, "minutes": 7, "partition": "long", "account": "lab", "requeues": 4}
    config = config_in(tmp_path)
    with pytest.raises(ConfigError, match="launcher=slurm: enough"):
        launch([Job(config, run_of(config).directory)], LauncherConfig("slurm", **asked), print, lambda *_: None)
    assert Executor.told == {
        "folder": str(tmp_path / "slurm"),
        "max_num_timeout": 4,
        "job_name": "tdc",
        "array_parallelism": 3,
        "cpus_per_task": 5,
        "gpus_per_node": 2,
        "time": 7,
        "partition": "long",
        "account": "lab",
    }


@needs_slurm
def test_runs_end_and_the_table_lists_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = sweep("method=tt,dense", "rank=2", "epochs=2")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert read_runs("results").status.tolist() == ["finished", "finished"]
    assert out.count("Slurm job") == 2 and "\ntt " in out and "\ndense " in out
    again = sweep("method=tt,dense", "rank=2", "epochs=2")
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and out.count("finished, test accuracy") == 2


@needs_slurm
def test_shared_dense_epochs_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = sweep("method=tt,tucker", "rank=5x", "epochs=3", "full_rank_epochs=1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (start,) = (tmp_path / "results/starts").glob("*/seed0")
    for summary in (tmp_path / "results/runs").rglob("summary.json"):
        assert json.loads(summary.read_text())["switch"]["shared"] == str(start.relative_to(tmp_path))
    assert out.count("Slurm job") == 3


@needs_slurm
def test_a_run_that_fails_ends_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "conf/arch").mkdir(parents=True)
    for name in ("killed", "raises"):
        text = f"defaults: [schema, _self_]\nname: {name}\ntarget:\n  _target_: networks.{name}\n"
        (tmp_path / f"conf/arch/{name}.yaml").write_text(text)
    process = sweep("--config-dir=conf", "arch=killed,raises,lenet5", "method=dense", "epochs=1")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "ended by Slurm without a result" in err and "no such layer" in err and "Traceback" not in err
    assert read_runs("results", status="finished").arch.tolist() == ["lenet5"]


@needs_slurm
def test_a_signal_cancels_the_jobs_after_their_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = sweep("epochs=100000", "seed=0,1,2")
    until = time.monotonic() + 120
    while not list(tmp_path.glob("results/runs/*/*/*/seed*/checkpoint.pt")) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130
    assert (
        err.splitlines()[-1] == "sweep interrupted, its jobs are cancelled; the same command goes on (0 of 3 runs done)"
    )
    assert set(read_runs("results").status) == {"interrupted"}
    listed = subprocess.run(
        ["squeue", "--me", "-h", "-t", "PENDING,RUNNING"], capture_output=True, text=True, check=True
    ).stdout
    assert "tdc" not in listed
