"""Several processes of torchrun: the numbers of one, written once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas
import pytest

WORDS = [
    "dataset=digits",
    "arch=lenet5",
    "method=tt",
    "rank=4",
    "precision=fp32",
    "dataset.padding=1",
    "method.plan=chain",
]
TIMES = ["train_seconds", "test_seconds", "images_per_second", "peak_memory_mb"]


def torchrun(processes, folder, *words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path]), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    program = [*(launcher if processes > 1 else []), "-m", "tdcompress", "train"]
    command = [sys.executable, *program, *WORDS, f"results_dir={folder}", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def metrics(folder):
    (path,) = folder.glob("runs/*/*/*/seed0/metrics.csv")
    return pandas.read_csv(path).drop(columns=TIMES)


def test_losses_are_those_of_one_process_at_the_same_batch(tmp_path):
    # Few steps: rounding doubles with each. The last batch has one image, and the second process none of it.
    words = ["epochs=2", "lr=0.01", "dataset.limit=446", "dataset.validation=0.1"]  # 401 and 45 images
    runs = {processes: torchrun(processes, tmp_path / str(processes), *words) for processes in (1, 2)}
    said = {processes: run.communicate()[0] for processes, run in runs.items()}
    assert all(run.returncode == 0 for run in runs.values()), said
    one, two = (metrics(tmp_path / str(processes)) for processes in (1, 2))
    assert len(one) == 2 and one.validation_accuracy.notna().all()
    pandas.testing.assert_frame_equal(one, two, rtol=1e-5)
    assert said[2].count("epoch 1/2") == 1  # only the first process speaks
    (summary,) = (tmp_path / "2").glob("runs/*/*/*/seed0/summary.json")
    assert json.loads(summary.read_text())["processes"] == 2


@pytest.mark.parametrize("arch", ["lenet"])  # with dropout: each process has random numbers of its own
def test_stopped_and_started_again_it_ends_the_same(tmp_path, arch):
    # Switched after the second epoch: the first process fits the cores, cuts their ranks after the third, and tells the
    # others.
    words = [f"arch={arch}", "arch.width=0.5", "epochs=4", "dataset.limit=80", "batch_size=20", "rank=10x"]
    words += ["full_rank_epochs=2"]
    whole = torchrun(2, tmp_path / "whole", *words)
    assert whole.wait() == 0, whole.stdout.read()
    broken = torchrun(2, tmp_path / "broken", *words)
    for line in broken.stdout:
        if "epoch 1/4" in line:
            break
    broken.send_signal(signal.SIGTERM)
    broken.communicate()
    assert broken.returncode != 0
    assert len(metrics(tmp_path / "broken")) < 4
    time.sleep(0.5)
    again = torchrun(2, tmp_path / "broken", *words)
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert "going on from epoch" in said and said.count("switched to cores after epoch 2") == 1
    assert said.count("cut to") == 1
    pandas.testing.assert_frame_equal(metrics(tmp_path / "whole"), metrics(tmp_path / "broken"))
