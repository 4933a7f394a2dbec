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

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_the_queue_ends_however_often_it_is_interrupted(tmp_path):
    line = [sys.executable, "scripts/gpu.py", f"out={tmp_path}", "toy=true", "jobs=1"]
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
    assert "tests        1 of 1 commands done, 0 failed" in out and "reference    0 of 1 commands done" in out
    whole = started(500)
    out, _ = whole.communicate()
    assert whole.returncode == 0 and "0 of 1" not in out
    queue = pandas.read_csv(tmp_path / "queue.csv").set_index("job")
    assert (queue.done == queue.commands).all() and (queue.failed == 0).all() and queue.device.notna().all()
    for job in queue.index:
        table = pandas.read_csv(tmp_path / f"{job}.csv")
        assert len(table) and table.device.notna().all()
        if job not in ("tests", "step", "infer"):
            assert set(table.method) == {"dense", "tt"} and (table.status == "finished").all()
