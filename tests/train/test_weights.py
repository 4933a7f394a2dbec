"""Decomposing a trained network and going on from it: every format, from a run, a compressed file, a state_dict."""

from __future__ import annotations

import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import FACTORISED, layout_of
from torch import Tensor

from tdcompress.cli.export import load
from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.datasets import datasets
from tdcompress.device.files import RunError
from tdcompress.layers.base import Factorised
from tdcompress.models.build import build
from tdcompress.results.identity import run_directory
from tdcompress.results.record import Summary
from tdcompress.results.run import Run
from tdcompress.tensor.errors import ConfigError
from tdcompress.train import checkpoint
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.network import network
from tdcompress.train.run import train
from tdcompress.train.weights import layer_errors, read_weights, write_compressed

pytestmark = pytest.mark.usefixtures("one_thread")
SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9}
DENSE = TrainConfig(
    dataset=DatasetConfig("digits", image_size=16),
    arch=ArchConfig("lenet", width=0.125),  # conv2 is 8 x 4 x 3 x 3, fc1 16 x 288
    method=MethodConfig("dense"),
    optim=OptimConfig(SGD),
    epochs=4,
    batch_size=50,
    device="cpu",
    precision="fp32",
)


@pytest.fixture(scope="module")
def dense(tmp_path_factory, one_thread) -> TrainConfig:
    """The configuration of a trained run; its folder is ``folder(dense)``."""
    config = replace(DENSE, results_dir=str(tmp_path_factory.mktemp("dense")))
    assert train(config, Run(folder(config)), print).test_accuracy > 0.85
    return config


def folder(config: TrainConfig) -> Path:
    return run_directory(config, DENSE)


def outputs(config: TrainConfig) -> tuple[Tensor, float]:
    """Of the network that training starts from: its logits on the test set, and its accuracy."""
    torch.manual_seed(0)
    data = datasets(config.dataset, torch.device("cpu"), print)
    with torch.inference_mode():
        ((images, labels),) = data.test.epoch(1000, 0, 0, shuffle=False)
        logits = network(config, 1, data.classes, 16).eval()(images)
    return logits, float((logits.argmax(1) == labels).double().mean())


def of_dense(dense: TrainConfig, method: MethodConfig, rank: int | str, **changes: object) -> TrainConfig:
    return replace(dense, method=method, rank=rank, init_from=str(folder(dense)), **changes)


@pytest.mark.parametrize("format", FACTORISED)
def test_decomposed_at_a_generous_rank_then_fine_tuned(dense: TrainConfig, tmp_path: Path, format: str):
    layers = {"conv2": {"layout": layout_of(format, "matrix")}, "fc1": {"layout": layout_of(format, "channels")}}
    # Of tensors that are matrices every graph has full ranks, a CP or a ring as well.
    full = of_dense(dense, MethodConfig(format, allow_larger=True, kernel="merged", layers=layers), 64)
    expected, accuracy = outputs(replace(full, method=dense.method))
    logits, _ = outputs(full)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)

    config = of_dense(dense, MethodConfig(format), "energy:0.97", results_dir=str(tmp_path), epochs=1, lr=0.01)
    torch.manual_seed(0)
    model = network(config, 1, 10, 16)
    path = tmp_path / f"{format}.pt"
    write_compressed(path, model, config)
    tuned = replace(config, init_from=str(path))
    again = outputs(tuned)
    torch.testing.assert_close(again[0], outputs(config)[0], rtol=1e-4, atol=1e-4)
    summary = train(tuned, Run(folder(tuned)), print)
    assert summary.initial_test_accuracy == pytest.approx(again[1], abs=0.01)
    assert summary.initial_test_accuracy > accuracy - 0.1
    assert summary.test_accuracy > summary.initial_test_accuracy - 0.02
    assert summary.compression_ratio > 1


def test_dense_weights_go_on_as_they_are(dense: TrainConfig):
    state = checkpoint.load(folder(dense), print)["model"]
    model = network(of_dense(dense, dense.method, 8), 1, 10, 16)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_factorised_run_is_gone_on_from(dense: TrainConfig, tmp_path: Path):
    config = of_dense(dense, MethodConfig("tt"), "energy:0.9", results_dir=str(tmp_path), epochs=1)
    train(config, Run(folder(config)), print)
    state = checkpoint.load(folder(config), print)["model"]
    further = replace(config, init_from=str(folder(config)), lr=0.001, method=MethodConfig("tt", decay="scaled"))
    model = network(further, 1, 10, 16)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert folder(further) != folder(config)
    for wrong, said in (
        (replace(further, rank=4), "rank=energy:0.9, not 4"),
        (replace(further, method=MethodConfig("cp")), "method.format=tt, not cp"),
        (replace(further, method=MethodConfig("tt", layout="channels")), "method.layout=null, not channels"),
    ):
        with pytest.raises(ConfigError, match=said):
            network(wrong, 1, 10, 16)


def test_errors_of_layers_are_those_of_their_singular_values(dense: TrainConfig):
    config = of_dense(dense, MethodConfig("tt", layout="matrix"), 3)
    weights = read_weights(str(folder(dense)))
    model = network(config, 1, 10, 16)
    errors = layer_errors(model, weights)
    lost, whole = 0.0, 0.0
    for name, rows in (("conv2", (8, 36)), ("fc1", (16, 288))):
        values = torch.linalg.svdvals(weights.state[f"{name}.weight"].double().reshape(rows))
        assert errors[name] == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-4)
        lost, whole = lost + float(values[3:].square().sum()), whole + float(values.square().sum())
    assert errors[""] == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert set(errors) == {"conv2", "fc1", ""}


def test_broken_before_its_first_step_and_after_it(dense: TrainConfig, tmp_path: Path, monkeypatch):
    source = shutil.copy(folder(dense) / checkpoint.NAME, tmp_path / "dense.pt")
    config = of_dense(dense, MethodConfig("tucker"), 4, results_dir=str(tmp_path / "whole"), epochs=2)
    config = replace(config, init_from=str(source))
    whole = train(config, Run(folder(config)), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    for line in ("before training", "epoch 1"):

        def log(text: str, line: str = line) -> None:
            if text.startswith(line):
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted):
            train(broken, Run(folder(broken)), log)
    Path(source).unlink()  # what it held is in the run's own checkpoint now
    summary = train(broken, Run(folder(broken)), print)
    for key in ("initial_test_accuracy", "test_accuracy", "status"):
        assert getattr(summary, key) == getattr(whole, key)
    assert any(isinstance(layer, Factorised) for layer in load(folder(broken)).factorised.modules())


def test_torchs_own_models_and_anyones_file(tmp_path: Path):
    from torchvision.models import vgg11_bn

    target = {"_target_": "torchvision.models.squeezenet1_1"}
    assert build(ArchConfig(target=target), 3, 7, 32)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(ConfigError, match="images of 3 channels, not 1"):
        build(ArchConfig(target=target), 1, 7, 32)
    with torch.device("meta"):
        model = build(ArchConfig(target={"_target_": "torchvision.models.vgg11_bn", "num_classes": 5}), 3, 7, 32)
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in vgg11_bn(num_classes=5).state_dict().items()
        }
    arch = ArchConfig("lenet5", width=0.2)
    saved = build(arch, 1, 10, 16)
    for number, held in enumerate((saved.state_dict(), {"state_dict": saved.state_dict(), "epoch": 3})):
        for legacy in (True, False):
            path = tmp_path / f"{number}{legacy}.pth"
            torch.save(held, path, _use_new_zipfile_serialization=not legacy)
            model = network(replace(DENSE, arch=arch, init_from=str(path)), 1, 10, 16)
            assert torch.equal(model.fc1.weight, saved.fc1.weight)


def refused(tmp_path: Path, held: object, arch: ArchConfig = DENSE.arch) -> str:
    path = tmp_path / "weights.pt"
    torch.save(held, path)
    with pytest.raises(ConfigError) as error:
        network(replace(DENSE, method=MethodConfig("tt"), arch=arch, init_from=str(path)), 1, 10, 16)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(RunError, match=r"init_from=none.pt: there is no none.pt"):
        read_weights("none.pt")
    with pytest.raises(RunError, match=r"there is no .*checkpoint.pt"):
        read_weights(str(tmp_path))
    state = build(DENSE.arch, 1, 10, 16).state_dict()
    assert "fc2.bias is missing in it and is (10,) in the network" in refused(
        tmp_path, {k: v for k, v in state.items() if k != "fc2.bias"}
    )
    assert "head.weight is (3,) in it and is missing in the network" in refused(
        tmp_path, state | {"head.weight": torch.zeros(3)}
    )
    assert "conv1.weight is (4, 1, 3, 3) in it and is (8, 1, 3, 3) in" in refused(
        tmp_path, state, ArchConfig("lenet", width=0.25)
    )
    assert "fc1.bias holds numbers that are not finite" in refused(
        tmp_path, state | {"fc1.bias": torch.full((16,), torch.inf)}
    )
    assert "holds no state_dict" in refused(tmp_path, {"lr": 3})
    assert "holds no state_dict" in refused(tmp_path, [1, 2])
    assert "more than tensors" in refused(tmp_path, build(DENSE.arch, 1, 10, 16))
    cores = {"fc1.cores.core1": torch.zeros(3, 2), "fc1.cores.core2": torch.zeros(2, 16)}
    assert "layer fc1: its cores" in refused(tmp_path, state | cores)
    assert "cores: no layer is named fc9" in refused(tmp_path, {"fc9.cores.core1": torch.zeros(3, 2)})
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="damaged"):
        read_weights(str(path))


def test_the_verb_fits_by_training_batches(tdc, tmp_path: Path, dense: TrainConfig):
    code, out, err = tdc(f"compress checkpoint={folder(dense)} method=tt rank=2 data=3")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("test accuracy before fine-tuning: ")]
    found = re.fullmatch(r".*: (\S+)% fitted by 3 training batches, (\S+)% without", line)
    assert out.count(f" {found[1]}%") == 2 and float(found[1]) > float(found[2])  # in the comparison, too
    assert out.splitlines()[-1].endswith("-data3.pt")  # beside the one that is fitted without
    code, _, err = tdc(f"compress checkpoint={folder(dense)} method=tt rank=2 data=-1")
    assert code == 2 and "data=-1 is not a whole number of at least 1" in err


def test_the_verb_and_what_follows_it(tdc, tmp_path: Path, dense: TrainConfig):
    code, out, err = tdc(f"compress checkpoint={folder(dense)} method=tucker rank=vbmf method.kernel=separate")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    file = Path(lines[-1])
    assert file.parts[:4] == ("results", "compressed", "digits", "lenet") and file.stat().st_size > 1000
    weights = read_weights(str(file))
    assert weights.config["dataset"]["image_size"] == 16 and weights.config["arch"]["width"] == 0.125
    assert set(weights.cores) == {"conv2", "fc1"}
    assert len(weights.cores["conv2"]) == 5
    errors = [line.split()[-1] for line in lines if line.startswith(("conv2", "fc1"))]
    assert len(errors) == 2 and all(0 < float(error) < 1 for error in errors)
    total = next(line for line in lines if line.startswith("relative error of all")).split()[-1]
    assert min(map(float, errors)) <= float(total) <= max(map(float, errors))
    compared = {line.split("  ")[0]: line.split("=>")[1].split()[0] for line in lines if "=>" in line}
    assert compared["bytes"] == f"{file.stat().st_size:,}"
    assert {"parameters", "MACs per image", "ms, batch 1", "ms, batch 64"} < compared.keys()

    code, out, err = tdc(f"train init_from={file} epochs=1 batch_size=50 lr=0.01")
    assert (code, err) == (0, "")
    (path,) = tmp_path.glob("results/runs/digits/lenet/tucker-vbmf-*/seed0/summary.json")
    summary = Summary.of(json.loads(path.read_text()))
    ranks = {layer["name"]: layer["ranks"] for layer in summary.layers if layer["ranks"]}
    for name, cores in weights.cores.items():
        assert sorted(ranks[name].values()) == sorted(cores["core"].shape)
    assert summary.config["method"]["kernel"] == "separate" and summary.config["arch"]["width"] == 0.125
    assert summary.initial_test_accuracy > 0.3 and summary.test_accuracy > 0.8
    told = float(compared["test accuracy"].strip("%")) / 100
    assert told == pytest.approx(summary.initial_test_accuracy, abs=0.01)  # of another precision, perhaps

    code, out, err = tdc(f"train init_from={file} epochs=1 batch_size=50 lr=0.01")
    assert code == 0 and "not run again" in out
    for line, said in (
        (f"compress checkpoint={file}", "is of a factorised network (layer conv2)"),
        (f"train init_from={file} rank=3", "made with rank=vbmf, not 3; leave method and rank to it"),
        (f"train init_from={folder(dense)} arch.width=0.25", "conv1.weight is (4, 1, 3, 3) in it"),
        (f"compress checkpoint={folder(dense)} method=dense", "no layer is smaller with method=dense"),
        (f"compress checkpoint={folder(dense)} rank=9999", "its cores would hold no fewer entries"),
        (f"compress checkpoint={folder(dense)} lrr=3", "unknown key 'lrr'"),
        ("compress checkpoint=nowhere", "checkpoint=nowhere: there is no nowhere"),
        (f"compress -m checkpoint={folder(dense)} rank=2,3 out=f.pt", "out=f.pt is one file, and these are 2 networks"),
        ("compress rank=3", "say which network is to be decomposed"),
        ("train rank=vbmf", "rank=vbmf follows from trained weights: say which, init_from=DIRECTORY or FILE"),
        ("train arch.head=mlp", "unknown arch.head 'mlp', known: fc, trl"),
    ):
        code, out, err = tdc(line)
        assert code == 2 and err.count("\n") == 1 and said in err, line


def test_a_file_of_ones_own_and_a_place_of_ones_own(tdc, tmp_path: Path):
    torch.save(build(ArchConfig("lenet5", width=0.2), 1, 10, 28).state_dict(), tmp_path / "mine.pth")
    code, out, err = tdc("compress checkpoint=mine.pth arch=lenet5 arch.width=0.2 rank=4 method=cp out=here/small.pt")
    assert (code, err) == (0, "") and out.splitlines()[-1] == "here/small.pt"
    code, out, err = tdc("show init_from=here/small.pt")
    assert (code, err) == (0, "") and "cp" in out
    model = network(replace(DENSE, **_saved("here/small.pt")), 1, 10, 28)
    assert [layer.graph.ranks for layer in model.modules() if isinstance(layer, Factorised)] == [{"r": 4}, {"r": 4}]


def _saved(path: str) -> dict[str, object]:
    config = read_weights(path).config
    arch, method = ArchConfig(**config["arch"]), MethodConfig(**config["method"])
    return {"arch": arch, "method": method, "rank": config["rank"], "init_from": path}


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_a_file_of_other_numbers_is_refused_by_name(dtype: torch.dtype, tmp_path: Path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    torch.save(model.state_dict() | {"0.weight": torch.ones(4, 4).to(dtype)}, tmp_path / "odd.pt")
    with pytest.raises(ConfigError, match=r"odd\.pt: 0\.weight is of (int8|bool), not of floating-point numbers"):
        read_weights(str(tmp_path / "odd.pt")).load_into(model)
