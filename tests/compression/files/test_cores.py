"""Compressed models as files: the same network again, to the bit, in a model that was just built."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from cases import FACTORISED
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

import tdcompress
from tdcompress.device.files import RunError
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Layers of many kinds: a table that is the classifier, too, several weights in one layer, axes of any number."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.table, self.out = nn.Embedding(60, width), nn.Linear(width, 60, bias=False)
        self.out.weight = self.table.weight
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(width, 2, batch_first=True)
        self.conv, self.up = nn.Conv1d(width, width, 3, padding=1), nn.ConvTranspose1d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.recurrent(self.table(x))[0]
        x = self.attention(x, x, x)[0]
        x = self.cross(x, x.flip(1), x.flip(1))[0]
        return self.out(self.norm(self.up(self.conv(x.transpose(1, 2)))).transpose(1, 2))


X = torch.arange(14).reshape(2, 7)


def built(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


@pytest.mark.parametrize("format", FACTORISED)
def test_the_same_network_again(format: str, tmp_path: Path):
    model = tdcompress.compress(built(0), format, 3, example_inputs=X, keep=["conv"], allow_larger=True, factors=2)
    model.train()(X).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * (parameter.grad if parameter.grad is not None else 0)
    model.recurrent.ih_l0.use(model.recurrent.ih_l0.candidates[-1])
    path = tmp_path / "deep" / "model.safetensors"
    tdcompress.save(model.eval(), path)
    again = tdcompress.load(path, built(1)).eval()
    assert list(factorised(again)) == list(factorised(model))
    assert {"cross.q_proj", "attention.in_proj", "recurrent.hh_l0", "table", "up"} <= factorised(again).keys()
    with torch.inference_mode():
        assert torch.equal(again(X), model(X))
    held, found = model.state_dict(), again.state_dict()
    assert held.keys() == found.keys() and all(torch.equal(held[key], found[key]) for key in held)
    assert again.table.cores is not again.out.cores and again.table.tensors()[0] is again.out.tensors()[0]
    for name, layer in factorised(again).items():
        own = model.get_submodule(name)
        assert (layer.graph, layer.plan.path, layer.layout) == (own.graph, own.plan.path, own.layout)
    assert all(p.data_ptr() % 64 == 0 for p in again.parameters())  # as torch lays them: others are rounded otherwise
    assert tdcompress.report(again) == tdcompress.report(model)
    assert path.stat().st_size < 4 * sum(p.numel() for p in model.parameters()) + 4096 * (2 + len(factorised(model)))


def test_training_goes_on(tmp_path: Path):
    model = tdcompress.compress(built(0), "tt", 3, example_inputs=X, keep=["conv"])
    model.conv.weight.requires_grad_(False)
    tdcompress.save(model, tmp_path / "model.safetensors")
    again = tdcompress.load(tmp_path / "model.safetensors", built(1))
    for net in (model, again):
        torch.manual_seed(2)
        net(X).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients and all(torch.equal(dict(again.named_parameters())[n].grad, g) for n, g in gradients.items())


def test_a_layer_by_itself_and_one_of_another_type(tmp_path: Path):
    layer = tdcompress.compress(nn.Linear(64, 64).double(), "tucker", 4, (64,), keep=[])
    tdcompress.save(layer, tmp_path / "layer.safetensors")
    again = tdcompress.load(tmp_path / "layer.safetensors", nn.Linear(64, 64).double())
    assert all(map(torch.equal, again.tensors(), layer.tensors())) and again.to_dense().dtype == torch.float64
    single = tdcompress.load(tmp_path / "layer.safetensors", nn.Linear(64, 64))
    assert single.to_dense().dtype == torch.float32
    torch.testing.assert_close(single.to_dense().double(), layer.to_dense(), rtol=1e-5, atol=1e-6)


def test_dense_files_of_anyone(tmp_path: Path):
    model = built(0)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "a.pt")
    save_file({k: v for k, v in model.state_dict().items() if k != "out.weight"}, tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):  # tied weights stand in the second once
        again = tdcompress.load(tmp_path / name, built(1))
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
        assert again.out.weight is again.table.weight


def test_what_does_not_fit(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ConfigError, match="this Net holds no cores: compress it first, or save its state_dict"):
        tdcompress.save(built(0), path)
    model = tdcompress.compress(built(0), "tt", 3, example_inputs=X)
    tdcompress.save(model, path)
    with pytest.raises(ConfigError, match="the model holds cores already: load takes one as its class builds it"):
        tdcompress.load(path, copy.deepcopy(model))
    with pytest.raises(ConfigError, match=r"the weight of \S+ is \(\d+, \d+\) in it and \(\d+, \d+\) in the model"):
        tdcompress.load(path, Net(24))
    with pytest.raises(ConfigError, match=r"the model has no layer \S+ that can be held as cores"):
        tdcompress.load(path, nn.Linear(3, 3))
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["tdcompress"])
    layers = {name: {k: v for k, v in one.items() if k != "path"} for name, one in said["layers"].items()}
    planner = {name: one | {"planner": []} for name, one in said["layers"].items()}
    for damaged in ("{", "[]", *(json.dumps(said | {"layers": one}) for one in (layers, planner, []))):
        save_file(load_file(path), path, metadata={"tdcompress": damaged})
        with pytest.raises(RunError, match="is damaged: its metadata are not what save writes"):
            tdcompress.load(path, built(1))
    save_file(load_file(path), path, metadata={"tdcompress": json.dumps(said | {"format": 9, "version": "7.0"})})
    with pytest.raises(RunError, match=r"is of format 9, written by tdcompress 7\.0"):
        tdcompress.load(path, built(1))
    with pytest.raises(RunError, match="model"):
        tdcompress.save(model, path / "below a file.safetensors")
    torch.save(model.state_dict(), tmp_path / "cores.pt")
    with pytest.raises(ConfigError, match=r"cores.pt holds cores \(\S+\) and does not say how: load reads what"):
        tdcompress.load(tmp_path / "cores.pt", built(1))
    with pytest.raises(ConfigError, match=r"model.pt must end in .safetensors"):
        tdcompress.save(model, tmp_path / "model.pt")
    name, layer = next(iter(factorised(model).items()))
    core = next(iter(layer.cores))
    prune.l1_unstructured(layer.cores, core, 0.5)
    with pytest.raises(ConfigError, match=f"layer {name}: {core} is computed from other parameters"):
        tdcompress.save(model, path)
    prune.remove(layer.cores, core)
    tdcompress.save(model, path)


def test_buffers_of_any_values_and_states_of_any_type(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Own(nn.Sequential):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    def own() -> nn.Module:
        model = Own(nn.Linear(64, 64), nn.Linear(64, 64))
        model.register_buffer("mask", torch.zeros(2, 2))
        model.register_buffer("turns", torch.zeros(2, dtype=torch.complex64))
        return model

    model = tdcompress.compress(own(), "tt", 4, (64,), keep=[])
    model.mask.fill_(-torch.inf)
    model.turns.fill_(1j)
    tdcompress.save(model, tmp_path / "model.safetensors")
    assert "saved without _extra_state, which are no tensors" in caplog.text
    again = tdcompress.load(tmp_path / "model.safetensors", own())
    assert torch.equal(again.mask, model.mask) and torch.equal(again.turns, model.turns)
    torch.save(own().state_dict() | {"mask": model.mask}, tmp_path / "dense.pt")
    assert torch.equal(tdcompress.load(tmp_path / "dense.pt", own()).mask, model.mask)
    assert "dense.pt: without _extra_state" in caplog.text


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, AveragedModel])
def test_wrapped_models(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path):
    model = tdcompress.compress(built(0), "tt", 3, example_inputs=X)
    for one, other in ((wrap(model), built(1)), (model, wrap(built(1)))):
        tdcompress.save(one, tmp_path / "model.safetensors")
        again = tdcompress.load(tmp_path / "model.safetensors", other)
        assert again is other
        assert all(map(torch.equal, again.parameters(), model.parameters()))
        assert str(tdcompress.report(wrap(model))) == str(tdcompress.report(model))
    inside = tdcompress.compress(wrap(built(0)), "tt", 3, example_inputs=X)
    assert str(tdcompress.report(inside)) == str(tdcompress.report(model))
    with pytest.raises(ConfigError, match="Linear is itself a layer that is replaced: compress it, then wrap it"):
        tdcompress.compress(wrap(nn.Linear(64, 64)), "tucker", 4, (64,), keep=[])
    layer = tdcompress.compress(nn.Linear(64, 64), "tucker", 4, (64,), keep=[])
    tdcompress.save(layer, tmp_path / "layer.safetensors")
    with pytest.raises(ConfigError, match="Linear is itself a layer that is replaced: load before it is wrapped"):
        tdcompress.load(tmp_path / "layer.safetensors", wrap(nn.Linear(64, 64)))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_model_with_compiled_submodules(compiled: bool, tmp_path: Path):
    def regional(seed: int, compiled: bool = True) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), nn.Linear(64, 4))
        model[0] = torch.compile(model[0], backend="eager") if compiled else model[0]
        return model

    torch.save(regional(0, compiled).state_dict(), tmp_path / "dense.pt")
    for other in (True, False):
        again = tdcompress.load(tmp_path / "dense.pt", regional(1, other))
        assert all(map(torch.equal, again.parameters(), regional(0).parameters()))
    model = tdcompress.compress(regional(0, compiled), "tt", 4, (64,))
    tdcompress.save(model, tmp_path / "model.safetensors")
    again = tdcompress.load(tmp_path / "model.safetensors", regional(1, compiled))
    assert all(map(torch.equal, again.parameters(), model.parameters()))


def test_what_a_file_cannot_hold_is_told_in_a_line_and_overlapping_tensors_are_apart(tmp_path: Path):
    class Own(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(64, 64), nn.Linear(64, 64))
            table = torch.arange(9.0)
            self.register_buffer("table", table)
            self.register_buffer("head", table[:5])

    model = tdcompress.compress(Own(), "tt", 4, (64,), keep=[], batch_size=numpy.int64(4))
    path = tmp_path / "model.safetensors"
    tdcompress.save(model, path)
    again = tdcompress.load(path, Own())
    assert torch.equal(again.table, torch.arange(9.0)) and torch.equal(again.head, torch.arange(5.0))
    with pytest.raises(ConfigError, match=r"^config= is of numbers, text, lists and dictionaries: .*Path"):
        tdcompress.save(model, path, config={"from": tmp_path})
    model.register_buffer("graph", torch.eye(4).to_sparse())
    with pytest.raises(ConfigError, match=r"^graph is sparse, which"):
        tdcompress.save(model, path)
    model.graph = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    with pytest.raises(ConfigError, match=r"^graph is quantised, which"):
        tdcompress.save(model, path)
