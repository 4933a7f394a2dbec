"""The benchmark of a training step: its time and its memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from tdcompress.bench.training import Network, TrainingStep

pytestmark = pytest.mark.usefixtures("one_thread")

STEP = "step arch=lenet dataset=digits width=0.25 batch_size=4 repeats=2"


def test_step_end_to_end(bench, timed):
    timed("step", dense=4.0, hand=0.5)
    code, out, err, rows = bench(f"{STEP} method=tt rank=4 parameters=")
    assert code == 2 and "parameters has no value" in err
    code, out, err, rows = bench(f"{STEP} method=tt rank=4")
    assert (code, err) == (0, "") and "results/bench/step.csv" in out
    (row,) = rows["step"]
    model = TrainingStep(Network("lenet", 0.25, "digits", 4, "fp32", "tt", 4, "model"), torch.device("cpu")).model
    assert row["parameters"] == str(sum(p.numel() for p in model.parameters()))
    assert int(row["macs"]) < int(row["dense_macs"]) and "base_ms" not in row
    assert [float(row[key]) for key in ("ms", "dense_ms", "hand_ms")] == [1000, 4000, 500]
    assert [float(row[key]) for key in ("speedup", "hand_ratio")] == [4, 2]
    memory, dense = float(row["memory_mb"]), float(row["dense_memory_mb"])
    assert memory > 0 and dense > 0 and float(row["memory_ratio"]) == pytest.approx(memory / dense, rel=1e-3)


def test_every_method_at_the_size_of_one(bench, timed, monkeypatch):
    timed("step", dense=4.0, hand=0.5, base=0.25)
    monkeypatch.setattr("tdcompress.bench.step.step_memory", lambda step: 1.0)
    code, _, err, rows = bench(f"{STEP} repeats=1 width=0.5 method=tr,tt parameters=tucker:4")
    assert (code, err) == (0, "")
    base = TrainingStep(Network("lenet", 0.5, "digits", 4, "fp32", "tucker", 4, "model"), torch.device("cpu"))
    for row in rows["step"]:
        assert row["rank"] == f"params:{base.parameters}" and row["base"] == "tucker:4"
        assert abs(int(row["parameters"]) / base.parameters - 1) <= 0.02
        assert (float(row["base_ms"]), float(row["base_ratio"])) == (250, 4)


def test_a_training_step_trains():
    step = TrainingStep(Network("lenet", 0.25, "digits", 8, "fp32", "tucker", 4, "model"), torch.device("cpu"))
    before = [p.detach().clone() for p in step.model.parameters()]
    step()
    assert all(not torch.equal(old, new) for old, new in zip(before, step.model.parameters(), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the high-water mark of the set-up stays")
def test_peak_memory_is_what_a_step_takes_above_the_setup():
    code = """
import torch
from tdcompress.bench import memory

class Step:
    def __init__(self, network, device, paths):
        self.kept = torch.ones(50 * 2**18)  # 50 MB that stay
        torch.ones(200 * 2**18)  # and 200 MB that do not

    def __call__(self):
        torch.ones(64 * 2**18)

memory.TrainingStep = Step
memory.main(json.dumps({"network": NETWORK, "paths": None, "device": "cpu", "threads": 1}))
"""
    network = asdict(Network("lenet", 1.0, "digits", 4, "fp32", "tt", 4, "model"))
    done = subprocess.run(
        [sys.executable, "-c", f"import json; NETWORK = {network!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 62 < float(done.stdout) < 72
