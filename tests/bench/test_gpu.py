"""The queue of jobs for a GPU, rehearsed with tiny networks on the CPU, ended in its midst and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
from gpu import METHODS, Options, queue

from tdcompress.bench.machine import methods
from tdcompress.bench.step import StepOptions
from tdcompress.config.command import parsed
from tdcompress.tensor.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
SOME = ["tests", "step", "cifar_0", "epochs"]  # of each kind of job one


def test_its_jobs_are_commands(tdc):
    jobs = {job.name: job.commands for job in queue(Options())}
    assert set(SOME) < set(jobs)
    for verb, *words in (command for commands in jobs.values() for command in commands):
        if verb == "train":
            assert parsed(words).sweep
        elif verb == "bench":  # words are read in order, so a bad last one is told of only if the others are good
            code, _, err = tdc(" ".join([verb, *words, "repeats=0"]))
            assert code == 2 and err.startswith("tdc: repeats=0 ")
        else:
            assert verb == "pytest" and all((ROOT / word).exists() for word in words)


def test_a_step_is_timed_of_every_format_in_layouts_that_it_has():
    (steps,) = (job.commands for job in queue(Options(only=("step",))))
    timed = set()
    for words in steps:
        said = dict(word.split("=", 1) for word in words if "=" in word)
        layout = said.get("layout")
        timed |= set(methods(StepOptions(method=tuple(filter(None, said.get("method", "").split(",")))), layout))
        for name in filter(None, said.get("method", "").split(",")):
            assert layout in (None, *FORMATS[name].layouts)
    assert timed == set(METHODS.split(","))


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are ended by signals")
def test_the_queue_ends_however_often_it_is_interrupted(tmp_path):
    line = [sys.executable, "scripts/gpu.py", f"out={tmp_path}", "toy=true", "jobs=1", f"only={','.join(SOME)}"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def started(seconds: float) -> subprocess.Popen[str]:
        words = [*line, f"seconds={seconds}"]
        return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)

    killed = started(500)
    while not (tmp_path / "step.csv").is_file():
        assert killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    out, _ = started(0.1).communicate()  # interrupted in its first command
    assert "tests        1 of 1 commands done, 0 failed" in out and "epochs       0 of 1 commands done" in out
    whole = started(500)
    out, _ = whole.communicate()
    assert whole.returncode == 0 and "0 of 1" not in out
    done = pandas.read_csv(tmp_path / "queue.csv").set_index("job")
    assert (done.done == done.commands).all() and (done.failed == 0).all() and done.device.notna().all()
    assert set(done.index) == set(SOME)
    for job in SOME:
        table = pandas.read_csv(tmp_path / f"{job}.csv")
        assert len(table) and table.device.notna().all()
        if job not in ("tests", "step"):
            assert set(table.method) == {"dense", "tt"} and (table.status == "finished").all()
