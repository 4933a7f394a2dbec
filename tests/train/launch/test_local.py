"""Sweeps through processes: the same runs, whatever becomes of one of them, and all of them stop when asked to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from tdcompress.config.schema import LauncherConfig, TrainConfig
from tdcompress.results.identity import identity, plain
from tdcompress.results.rows import read_metrics, read_runs
from tdcompress.results.run import Run

SMALL = ["dataset.limit=100", "arch.width=0.25"]
NETWORKS = r"""
import os, signal
from torch import nn

def good(in_channels, classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, 8), nn.ReLU(), nn.Linear(8, classes))

def killed(**sizes):
    os.kill(os.getpid(), signal.SIGKILL)

def raises(**sizes):
    raise RuntimeError("no such\n layer")
"""


THREADS = str(max(1, len(os.sched_getaffinity(0)) // 2))  # of a run, two at once


def process(*words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path]), "OMP_NUM_THREADS": THREADS}
    command = [sys.executable, "-m", "tdcompress", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def sweep(*words):
    return process("train", "-m", *words, *SMALL)


@pytest.fixture
def here(tdc, monkeypatch):
    """A sweep that this process launches: exit code, standard output, standard error."""
    monkeypatch.setenv("OMP_NUM_THREADS", THREADS)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(THREADS))
    yield lambda *words: tdc(" ".join(["train -m", *words, *SMALL]))
    torch.set_num_threads(threads)


def test_the_same_runs_as_one_after_the_other(here):
    # A plan that needs no measured rates; the dense network has no rank, so that it is one run of two.
    words = ["method=tt,dense", "method.plan=chain", "rank=2,3", "epochs=2"]
    code_one, out_one, _ = here(*words, "results_dir=one")
    code_two, out_two, err = here(*words, "results_dir=two", "launcher=local", "launcher.jobs=2")
    assert (code_one, code_two, err) == (0, 0, "")
    runs = [read_runs(folder) for folder in ("one", "two")]
    names = [[directory.split("/", 1)[1] for directory in table.directory] for table in runs]
    assert names[0] == names[1] and runs[1].status.tolist() == ["finished"] * 3
    losses = [read_metrics(table).train_loss.tolist() for table in runs]
    assert losses[0] == losses[1]
    assert all(device.endswith(f"{THREADS} threads") for device in runs[1].device)
    # The table lists them in the sweep's order, whichever ended first, and each line says whose it is.
    table = out_two.split("compression")[1].splitlines()
    assert [line.split()[1] for line in table if line.startswith("lenet ")] == ["tt", "tt", "dense"]
    for name in ("tt 2", "tt 3", "dense"):
        assert sum(line.startswith(f"lenet {name} seed 0  epoch 2/2") for line in out_two.splitlines()) == 1
    assert "\n3 of 3 runs done\n" in out_two
    assert "epoch 2/2" in out_one


def test_a_run_that_fails_ends_no_other(here, tdc, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "conf/arch").mkdir(parents=True)
    for name in ("killed", "raises", "good"):
        text = f"defaults: [schema, _self_]\nname: {name}\ntarget:\n  _target_: networks.{name}\n"
        (tmp_path / f"conf/arch/{name}.yaml").write_text(text)
    words = "arch=killed,raises,good method=tt rank=2 epochs=1 launcher=local dataset.limit=100"
    code, _, err = tdc(f"train -m --config-dir=conf {words}")
    assert code == 1
    assert "killed by SIGKILL, out of memory?" in err and ": no such layer\n" in err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("tdc: 2 of 3 runs failed: ")
    runs = read_runs("results", status="finished")
    assert runs.method.tolist() == ["tt"] and set(runs.arch) == {"networks.good"}


def begun(command, folder, count=1):
    """Wait until ``count`` runs under ``folder`` have a checkpoint."""
    until = time.monotonic() + 120
    while len(list(folder.glob("results/runs/*/*/*/seed*/checkpoint.pt"))) < count and time.monotonic() < until:
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)


def test_a_killed_sweep_takes_its_runs_along_and_the_same_command_goes_on(here, tmp_path):
    words = ["epochs=40", "seed=0,1", "launcher=local", "launcher.jobs=2"]
    killed = sweep(*words)
    begun(killed, tmp_path, 2)
    killed.kill()
    killed.communicate()  # returns when nobody holds the other end of the pipes
    for directory in tmp_path.glob("results/runs/*/*/*/seed*"):
        with Run(directory).locked() as run:
            assert run.summary().epochs_done < 40
    code, out, err = here(*words)
    assert (code, err) == (0, "") and out.count("going on from epoch") == 2
    assert read_runs("results").status.tolist() == ["finished", "finished"]


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_one_process_works_and_the_other_says_so_and_leaves(tdc, tmp_path, number):
    words = ["train", *SMALL, "epochs=100000"]
    worker = process(*words)
    begun(worker, tmp_path)
    code, _, err = tdc(" ".join(words))
    assert code == 2 and err.startswith("tdc: another process works on results/runs/")
    assert err.count("\n") == 1
    worker.send_signal(number)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 128 + number
    assert re.fullmatch(r"results/\S+: interrupted; the same command goes on from epoch \d+\n", err)


def test_how_a_run_is_launched_is_not_what_it_is():
    assert identity(plain(TrainConfig(launcher=LauncherConfig("local", 7)))) == identity(plain(TrainConfig()))


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_all_runs_stop_after_their_step_and_no_other_begins(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    launcher = sweep("epochs=100000", "seed=0,1,2,3", "launcher=local")
    begun(launcher, tmp_path, 2)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert (
        err == "sweep interrupted; the same command goes on (0 of 4 runs done)\n"
        and "Traceback" not in out
        and "stopped at once" not in out
    )
    runs = read_runs("results")
    assert runs.seed.tolist() == [0, 1] and runs.status.tolist() == ["interrupted", "interrupted"]
