"""What fails leaves a model as it was: the same modules, the same parameters with the same values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tdcompress
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

WHERE = "tdcompress.compression.files.cores"
X = torch.arange(14).reshape(2, 7)


class Net(nn.Module):
    """A shared table, layers with several weights, and one that stays dense."""

    def __init__(self, classes: int = 60) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(60, 16), nn.Linear(16, 60, bias=False)
        self.out.weight = self.table.weight
        self.cross = nn.MultiheadAttention(16, 2, batch_first=True)
        self.recurrent = nn.GRU(16, 16, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.last = nn.Linear(60, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.recurrent(self.encoder(self.table(x)))[0]
        x = self.norm(self.cross(x, x.flip(1), x.flip(1))[0].transpose(1, 2)).transpose(1, 2)
        return self.last(self.out(x))


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    """All that a model is: modules and tensors by identity, attributes, values."""
    modules = {name: (id(one), one.training) for name, one in model.named_modules(remove_duplicate=False)}
    attributes = {(name, key): id(v) for name, one in model.named_modules() for key, v in vars(one).items()}
    owned = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return modules, attributes, {name: id(t) for name, t in owned}, {name: t.tolist() for name, t in owned}


def compressed(**settings: Any) -> Net:
    return tdcompress.compress(Net(), "tt", 3, example_inputs=X, keep=["last"], **settings)


@pytest.fixture(scope="module")
def file(tmp_path_factory, one_thread) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    tdcompress.save(compressed(), path)
    return path


def other(change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> Callable[[Path, Path], None]:
    """From a file to another with other tensors and metadata."""

    def write(source: Path, path: Path) -> None:
        with safe_open(source, framework="pt") as opened:
            said = json.loads(opened.metadata()["tdcompress"])
        tensors = load_file(source)
        change(tensors, said)
        save_file(tensors, path, metadata={"tdcompress": json.dumps(said)})

    return write


DAMAGED = {
    r"last\.bias is missing in it": other(lambda tensors, said: tensors.pop("last.bias")),
    r"norm\.more is \(3,\) in it": other(lambda tensors, said: tensors.update({"norm.more": torch.ones(3)})),
    r"table\.cores\.core1 is missing in it": other(lambda tensors, said: tensors.pop("table.cores.core1")),
    r"table\.cores\.core1 is \(5, 7\) in it": other(lambda t, said: t.update({"table.cores.core1": torch.ones(5, 7)})),
    r"has no layer gone": other(lambda tensors, said: said["left"].update(gone="kept")),
}


@pytest.mark.parametrize("said", DAMAGED)
def test_a_file_that_does_not_fit_is_not_loaded_in_part(file: Path, tmp_path: Path, said: str):
    path, model = tmp_path / "damaged.safetensors", Net()
    DAMAGED[said](file, path)
    before = snapshot(model)
    with pytest.raises(ConfigError, match=f"does not fit.*{said}"):
        tdcompress.load(path, model)
    assert snapshot(model) == before
    assert tdcompress.load(file, model) is model and not isinstance(model.table, nn.Embedding)


def test_nor_is_that_of_a_model_with_another_layer(file: Path):
    model = Net(classes=5)  # it differs in the last layer, which is dense
    before = snapshot(model)
    with pytest.raises(ConfigError, match=r"last\.weight is \(60, 60\) in it and is \(5, 60\) in the network"):
        tdcompress.load(file, model)
    assert snapshot(model) == before


def test_a_module_that_refuses_its_values(file: Path):
    model = Net()
    model.last.bias = nn.Parameter(torch.zeros(1).expand(60))  # which cannot be written to
    before = snapshot(model)
    with pytest.raises(RuntimeError, match=r"last\.bias"):
        tdcompress.load(file, model)
    assert snapshot(model) == before


def failing(*_: Any, **__: Any) -> None:
    raise ConfigError("too late")


LATE = {"keep_trace": {}, "call_layers": {}, "estimate_again": {"data": [X]}}


@pytest.mark.parametrize("step", LATE)
def test_a_compression_that_fails_late_is_undone(monkeypatch: pytest.MonkeyPatch, step: str):
    model = Net()
    before = snapshot(model)
    monkeypatch.setattr(f"tdcompress.compression.swap.{step}", failing)
    with pytest.raises(ConfigError, match="too late"):
        tdcompress.compress(model, "tt", 3, example_inputs=X, keep=["[!l]*"], init="rough", **LATE[step])
    assert snapshot(model) == before


def test_one_that_is_interrupted_is_undone():
    model, seen = Net(), []

    def progress(names):
        for name in names:
            if seen:
                raise KeyboardInterrupt
            seen.append(name)
            yield name

    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        tdcompress.compress(model, "tt", 3, example_inputs=X, progress=progress)
    assert snapshot(model) == before


def test_a_switch_that_fails_is_undone():
    model = Net()
    others = [parameter for name, parameter in model.named_parameters() if not name.startswith("last.")]
    groups = [{"params": others}, {"params": [model.last.weight, model.last.bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    optimizer.param_groups[1]["param_names"] = ["last.weight"]  # of two
    before = snapshot(model)
    with pytest.raises(ValueError, match="zip"):
        tdcompress.switch(model, optimizer, "tt", 3, example_inputs=X, keep=["last"])
    assert snapshot(model) == before
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in others]
