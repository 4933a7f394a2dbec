"""Sweeps go on after a failure, and name it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")

REPORT = ("report.html", "report.md", "summary.csv", "metrics.csv")


def test_a_sweep_of_nothing_but_mistakes_leaves_nothing(tdc, tmp_path):
    code, _, err = tdc("train -m rank=0,much")
    assert code == 2 and err.splitlines()[-1] == "tdc: 2 of 2 runs failed: rank=0; rank=much"
    assert not any(tmp_path.iterdir())


def test_words_that_change_nothing_are_said_to(tdc, tmp_path):
    code, out, _ = tdc("train -m device=cpu,auto rank=2 epochs=1 dataset.limit=100 arch.width=0.25")
    assert code == 0 and "1 of 2 runs are others again: their words differ in what decides no result" in out
    assert len(list(tmp_path.glob("results/runs/*/*/*/seed0"))) == 1
    code, _, err = tdc("train -m launcher.jobs=2 rank=2,3 epochs=1")
    assert code == 2 and "launcher.jobs=2 is of the launchers local, slurm" in err


def test_a_sweep_goes_on_after_a_failure_and_names_it(tdc, tmp_path):
    code, out, err = tdc("train -m rank=0,2 epochs=1 dataset.limit=100 arch.width=0.25")
    assert code == 1
    assert err.splitlines()[-1] == "tdc: 1 of 2 runs failed: rank=0 epochs=1 dataset.limit=100 arch.width=0.25"
    assert len(list(tmp_path.glob("results/runs/digits/lenet/tt-2-*/seed0/summary.json"))) == 1

    for spelling in ("2", "02,3", "10X,+2"):
        code, out, err = tdc(f"runs rank={spelling}")
        assert code == 0 and out.count("finished") == 1
    code, out, err = tdc("train rank=2 epochs=1 dataset.limit=100 arch.width=0.25")
    assert code == 0 and "not run again" in out

    code, out, err = tdc("report")
    assert code == 0 and out.splitlines() == [f"results/{name}" for name in REPORT]
    assert all((tmp_path / line).stat().st_size > 100 for line in out.splitlines())
    code, out, err = tdc("plot format=png")
    figures = [Path(line) for line in out.splitlines()]
    assert code == 0 and figures and all((tmp_path / figure).stat().st_size > 5000 for figure in figures)


NETWORKS = """
import gc, weakref
import torch
from torch import nn

before = []

class Hungry(nn.Flatten):
    def forward(self, x):
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB. GPU 0 has less")
        return super().forward(x)

def network(first, in_channels, classes, image_size):
    gc.collect()
    assert not [model for model in before if model() is not None], "of the run before"
    model = nn.Sequential(first, nn.Linear(in_channels * image_size**2, classes))
    before.append(weakref.ref(model))
    return model

def hungry(**sizes):
    return network(Hungry(), **sizes)

def good(**sizes):
    return network(nn.Flatten(), **sizes)

class Wrong(nn.Flatten):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no such layer")
        return super().forward(x)

def wrong(**sizes):
    return network(Wrong(), **sizes)
"""


def test_a_sweep_goes_on_when_a_run_needs_more_memory_than_there_is(tdc, tmp_path):
    (tmp_path / "hunger.py").write_text(NETWORKS)
    (tmp_path / "conf/arch").mkdir(parents=True)
    for name in ("hungry", "wrong", "good"):
        text = f"defaults: [schema, _self_]\nname: {name}\ntarget:\n  _target_: hunger.{name}\n"
        (tmp_path / f"conf/arch/{name}.yaml").write_text(text)
    code, _, err = tdc(
        "train -m --config-dir=conf arch=hungry,wrong,good method=dense epochs=1 dataset.limit=100 device=cpu"
    )
    assert code == 1
    hungry, wrong, last = err.splitlines()
    assert "arch=hungry" in hungry and "(CUDA out of memory. Tried to allocate 7.00 GiB), peak so far" in hungry
    assert hungry.endswith("try batch_size=50, or a smaller rank or arch.width")
    assert wrong.endswith(": no such layer")
    assert last.startswith("tdc: 2 of 3 runs failed: arch=hungry ") and "; arch=wrong " in last
    assert len(list(tmp_path.glob("results/runs/digits/hunger.good/*/seed0/metrics.csv"))) == 1
