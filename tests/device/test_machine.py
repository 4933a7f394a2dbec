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


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_each_device_is_set_up_its_own_way(monkeypatch, kind):
    done = []
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: done.append("memory"))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", done.append)
    machine.set_up(torch.device(kind))
    assert done == (["memory"] if kind == "cpu" else ["high"])
