"""Files of weights as people have them: the keys, prefixes, types and parts that training scripts leave."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tdcompress.compression.files.state_dicts import StateDict, read_state_dict
from tdcompress.device.files import RunError
from tdcompress.tensor.errors import ConfigError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Net().state_dict()


def wrapped(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state().items()}


KEPT = {
    "plain": (lambda: state(), ""),
    "state_dict": (lambda: {"state_dict": state(), "epoch": 3}, "its key state_dict"),
    "lightning": (
        lambda: {"state_dict": wrapped("model."), "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
        "its key state_dict; names without model.",
    ),
    "parallel": (lambda: {"model": wrapped("module.")}, "its key model; names without module."),
    "compiled": (lambda: wrapped("_orig_mod."), "names without _orig_mod."),
    "all of them": (
        lambda: {"model_state_dict": wrapped("module._orig_mod.model.")},
        "its key model_state_dict; names without _orig_mod. and module. and model.",
    ),
    "a compiled part": (
        lambda: {key.replace("body.", "body._orig_mod."): value for key, value in state().items()},
        "names without _orig_mod.",
    ),
    "nested": (lambda: {"net": {"state_dict": state()}}, "its key net; its key state_dict"),
    "averages too": (lambda: {"model": state(), "model_ema": state()}, "its key model, not model_ema"),
    "averages": (lambda: {"ema_state_dict": state()}, "its key ema_state_dict"),
    "half": (
        lambda: {key: value.half() if value.is_floating_point() else value for key, value in state().items()},
        "float16 as float32",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_as_training_scripts_keep_them(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    make, said = KEPT[name]
    torch.save(make(), tmp_path / "weights.pt")
    model = Net()
    found = read_state_dict(tmp_path / "weights.pt").named_as(model)
    assert found.tensors.keys() == model.state_dict().keys()
    model.load_state_dict(found.tensors)
    assert all(torch.allclose(value, state()[key], atol=1e-3) for key, value in model.state_dict().items())
    with caplog.at_level(logging.WARNING):
        found.log()
    assert caplog.messages == ([f"{tmp_path / 'weights.pt'}: {said}"] if said else [])


def test_a_submodule_called_as_a_wrapper_is_no_wrapper(tmp_path: Path):
    inner = nn.Module()
    inner.model = Net()
    torch.save(inner.state_dict(), tmp_path / "weights.pt")
    found = read_state_dict(tmp_path / "weights.pt").named_as(inner)
    assert found.tensors.keys() == inner.state_dict().keys() and not found.said


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_several_files_and_their_index(kind: str, tmp_path: Path):
    whole, where = state(), {}
    for k, part in enumerate((list(whole)[:3], list(whole)[3:])):
        name = f"model-{k}-of-2.{kind}"
        tensors = {key: whole[key].contiguous() for key in part}
        save_file(tensors, tmp_path / name) if kind == "safetensors" else torch.save(tensors, tmp_path / name)
        where |= dict.fromkeys(part, name)
    stem = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    index = tmp_path / f"{stem}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    for source in (index, tmp_path):
        found = read_state_dict(source).tensors
        assert found.keys() == whole.keys() and all(torch.equal(found[key], whole[key]) for key in whole)
    (tmp_path / f"model-1-of-2.{kind}").unlink()
    with pytest.raises(RunError, match=rf"there is no model-1-of-2\.{kind} beside it"):
        read_state_dict(tmp_path)
    index.write_text(json.dumps({"weight_map": where | {"lost": f"model-0-of-2.{kind}"}}))
    save_file({"a": torch.zeros(1)}, tmp_path / f"model-1-of-2.{kind}") if kind == "safetensors" else torch.save(
        {"a": torch.zeros(1)}, tmp_path / f"model-1-of-2.{kind}"
    )
    with pytest.raises(RunError, match="is in none of its files"):
        read_state_dict(tmp_path)
    index.write_text("{")
    with pytest.raises(RunError, match="damaged"):
        read_state_dict(tmp_path)


def test_a_file_of_safetensors(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file({key: value.contiguous() for key, value in state().items()}, path, metadata={"format": "pt"})
    found = read_state_dict(path)
    assert found.metadata == {"format": "pt"} and torch.equal(found.tensors["head.weight"], state()["head.weight"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="damaged"):
        read_state_dict(path)


with torch.device("meta"):
    NO_VALUES = torch.zeros(2)
UNUSABLE = {
    "sparse": (torch.eye(4).to_sparse(), r"is sparse: save value\.to_dense\(\)"),
    "quantised": (
        torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
        r"is quantised: save value\.dequantize\(\)",
    ),
    "float8": (torch.eye(4).to(torch.float8_e4m3fn), "is of float8_e4m3fn: save it times its scale as bfloat16"),
    "meta": (NO_VALUES, "is on the meta device, without values"),
    "no tensor": (3, "is of int, no tensor"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_values_that_are_no_weights(name: str, tmp_path: Path):
    value, said = UNUSABLE[name]
    torch.save(state() | {"head.odd": value}, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match=rf"weights\.pt: head\.odd {said}") as error:
        read_state_dict(tmp_path / "weights.pt")
    assert "\n" not in str(error.value)


def test_parameters_are_finite_and_buffers_need_not_be():
    model = nn.Linear(2, 3)
    model.register_buffer("mask", torch.zeros(2))
    held = model.state_dict() | {"mask": torch.tensor([0.0, -torch.inf])}
    StateDict("file", held).load_into(model)
    assert model.mask[1] == -torch.inf
    with pytest.raises(ConfigError, match=r"^file: bias holds numbers that are not finite$"):
        StateDict("file", held | {"bias": torch.tensor([0.0, torch.nan, 0.0])}).load_into(model)
    assert model.bias.isfinite().all()
    with pytest.raises(ConfigError, match=r"^file: bias is of complex64, not of floating-point numbers$"):
        StateDict("file", held | {"bias": torch.zeros(3, dtype=torch.complex64)}).load_into(model)
    model.mask = torch.zeros(2, dtype=torch.complex64)
    StateDict("file", held | {"mask": torch.tensor([1j, 2j])}).load_into(model)
    assert model.mask[1] == 2j
    with pytest.raises(ConfigError, match=r"^weight of the model is on the meta device: model\.to_empty"):
        StateDict("file", held).load_into(model.to("meta"))


@pytest.mark.parametrize("held", [{"lr": 3}, [1, 2], {}, {"model": {}}])
def test_files_without_weights(held: object, tmp_path: Path):
    torch.save(held, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="holds no state_dict: save model"):
        read_state_dict(tmp_path / "weights.pt")


@pytest.mark.parametrize("held", [np.zeros(3), argparse.Namespace(lr=1), Net()])
def test_files_that_hold_code_are_not_run(held: object, tmp_path: Path):
    torch.save({"state_dict": state(), "more": held}, tmp_path / "weights.pt")
    with pytest.raises(RunError, match="holds more than tensors and plain values"):
        read_state_dict(tmp_path / "weights.pt")


def test_what_is_not_there(tmp_path: Path):
    with pytest.raises(RunError, match=r"there is no .*nothing\.pt"):
        read_state_dict(tmp_path / "nothing.pt")
    with pytest.raises(RunError, match=r"holds none of model\.safetensors\.index\.json"):
        read_state_dict(tmp_path)


class Versioned(nn.Linear):
    """As torchvision's MNASNet, it wants to know by which version of its class it was written."""

    _version = 2

    def _load_from_state_dict(self, state: dict, prefix: str, metadata: dict, *others: object) -> None:
        assert metadata["version"] == 2
        super()._load_from_state_dict(state, prefix, metadata, *others)


def test_a_module_that_asks_for_its_version_is_told(tmp_path: Path):
    model = Versioned(3, 2)
    save_file({key: torch.ones_like(value) for key, value in model.state_dict().items()}, tmp_path / "ones.safetensors")
    read_state_dict(tmp_path / "ones.safetensors").load_into(model)
    assert bool((model.weight == 1).all())
