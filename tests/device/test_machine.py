"""Which device is meant, and how torch is set up for it."""

from __future__ import annotations

import pytest
import torch

from tdcompress.device import machine
from tdcompress.tensor.errors import ConfigError


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.choose_device("auto") == machine.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch finds no CUDA device"):
        machine.choose_device("cuda")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n", "AMD EPYC (family 25, model 17)"),
        ("cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon 8481C\n\nmodel name\t: another\n", "Xeon 8481C"),
        ("model name\t: Some ARM\n", "Some ARM"),
    ],
)
def test_processors_that_a_cloud_calls_the_same_are_told_apart(tmp_path, monkeypatch, said, name):
    (tmp_path / "cpuinfo").write_text(said)
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / "cpuinfo")
    machine._cpu_name.cache_clear()
    assert machine.device_name(torch.device("cpu")).startswith(f"{name}, ")
    machine._cpu_name.cache_clear()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_each_device_is_set_up_its_own_way(monkeypatch, kind):
    done = []
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: done.append("memory"))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", done.append)
    machine.set_up(torch.device(kind))
    assert done == (["memory"] if kind == "cpu" else ["high"])
