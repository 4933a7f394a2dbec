"""Several processes of torchrun: the numbers of one, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas

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


def test_a_sweep(tmp_path):
    words = ["-m", "method=dense,tt,tucker,cp", "rank=10x", "full_rank_epochs=1", "epochs=2", "dataset.limit=60"]
    run = torchrun(2, tmp_path, *words)
    said = run.communicate(timeout=240)[0]
    assert run.returncode == 0, said
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/*/seed0/summary.json")]
    assert sorted(one["method"] for one in summaries) == ["cp", "dense", "tt", "tucker"]
    assert {(one["status"], one["processes"]) for one in summaries} == {("finished", 2)}
    assert not (tmp_path / "starts").exists()  # of which several processes would not make use


# Forked and stopped as torchrun does it: what they share are the imports, which take far longer than the runs.
STOPPED = """
import gc, os, signal, socket, sys, time
import torch._dynamo  # which several processes need
from tdcompress import cli
from tdcompress.cli import train

gc.freeze()

def begun(log, *words):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    children = []
    for rank in "01":
        if not (child := os.fork()):
            os.environ |= place | {"RANK": rank, "LOCAL_RANK": rank}
            os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
            cli.main(["train", *sys.argv[1:], *words])
            sys.stdout.flush()
            os._exit(0)
        children.append(child)
    return children

def codes(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

print(codes(begun("whole.log", "results_dir=whole")))
children = begun("broken.log", "results_dir=broken")
while not os.path.exists("broken.log") or "epoch 1/4" not in open("broken.log").read():
    time.sleep(0.01)
for child in children:
    os.kill(child, signal.SIGTERM)
print(codes(children))
print(codes(begun("again.log", "results_dir=broken")))
"""


def test_stopped_and_started_again_it_ends_the_same(tmp_path):
    # With dropout: each process has random numbers of its own. Switched after the second epoch: the first process fits
    # the cores, cuts their ranks after the third, and tells the others.
    words = ["arch=lenet", "arch.width=0.5", "epochs=4", "dataset.limit=80", "batch_size=20", "rank=10x"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", STOPPED, *WORDS, *words, "full_rank_epochs=2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines() == ["[0, 0]", "[143, 143]", "[0, 0]"], done.stderr
    assert "interrupted; the same command goes on from epoch" in done.stderr
    said = (tmp_path / "again.log").read_text()
    assert "going on from epoch" in said and said.count("switched to cores after epoch 2") == 1
    assert said.count("cut to") == 1
    pandas.testing.assert_frame_equal(metrics(tmp_path / "whole"), metrics(tmp_path / "broken"))
