"""Which arithmetic a run gets, that it gets it, and that it keeps it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.datasets import DeviceDataset
from tdcompress.device.files import RunError
from tdcompress.device.precision import autocast, effective_precision, native_bf16
from tdcompress.results.identity import run_directory
from tdcompress.results.run import Run
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.interrupt import StopSignals
from tdcompress.train.learner import Learner
from tdcompress.train.run import train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
pytestmark = pytest.mark.usefixtures("one_thread")


def pretend(monkeypatch, **capabilities):
    """A CPU with only these instructions."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        dataset=DatasetConfig("digits", image_size=8, limit=40),
        arch=ArchConfig("lenet", width=0.1),
        method=MethodConfig("tt"),
        optim=OptimConfig({"_target_": "torch.optim.SGD"}),
        rank=2,
        epochs=2,
        device="cpu",
        results_dir=str(tmp_path),
    )


def run_of(config):
    return Run(run_directory(config, TrainConfig(**{**vars(config), "precision": "auto"})))


def test_native_is_what_the_kernel_says_of_this_cpu():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "flags\t" not in cpuinfo.read_text():
        pytest.skip("no list of instructions to compare with")
    words = set(cpuinfo.read_text().split())
    assert native_bf16(CPU) == bool(words & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "amx_bf16": False}, False)],
)
def test_auto_on_a_cpu(monkeypatch, capabilities, native):
    pretend(monkeypatch, **capabilities)
    assert effective_precision("auto", CPU) == ("bf16" if native else "fp32")
    assert effective_precision("fp32", CPU) == "fp32"
    if native:
        assert effective_precision("bf16", CPU) == "bf16"
    else:
        with pytest.raises(ConfigError, match="precision=bf16: this CPU has no bf16 arithmetic; use precision=fp32"):
            effective_precision("bf16", CPU)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((10, 0), "bf16")])
def test_auto_on_cuda(monkeypatch, capability, expected):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert effective_precision("auto", CUDA) == expected


class Rounding(nn.Module):
    """One output, the sum of the pixels through a matrix product, noted."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4))
        self.seen = []

    def forward(self, images):
        outputs = nn.functional.linear(images.flatten(1), self.weight)
        self.seen.append((outputs.dtype, outputs.detach().float()))
        return outputs


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_both_loops_compute_in_it_and_keep_weights_float(monkeypatch, config, precision, dtype):
    pretend(monkeypatch, avx512_bf16=True)
    images = torch.full((6, 2, 2, 1), 1, dtype=torch.uint8)
    data = DeviceDataset(images, torch.arange(6) % 2, CPU, torch.zeros(1), torch.full((1,), 256 / 257))
    learner = Learner(replace(config, precision=precision, batch_size=6), Rounding(), 1, CPU)
    with StopSignals() as stop:
        loss, _ = learner.train(data, stop)
        learner.evaluate(data, 6, stop)
    (trained, values), (tested, _) = learner.model.seen
    assert trained == tested == dtype
    # 257/256 needs nine bits; bfloat16 has eight.
    assert values[0, 0].item() == pytest.approx(4 * (1 if precision == "bf16" else 257 / 256), abs=1e-6)
    assert loss == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-7)  # equal outputs; the loss itself is float32
    assert learner.model.weight.dtype == learner.model.weight.grad.dtype == torch.float32


def test_autocast_off_changes_nothing():
    a, b = torch.rand(3, 3), torch.rand(3, 3)
    with autocast(CPU, "fp32"):
        assert torch.equal(a @ b, torch.mm(a, b)) and (a @ b).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (a @ b).dtype == torch.bfloat16


def test_a_run_says_its_precision_and_is_found_again_on_another_cpu(monkeypatch, config):
    pretend(monkeypatch, avx512_bf16=True)
    lines = []
    summary = train(config, run_of(config), lines.append)
    assert summary.precision == summary.config["precision"] == "bf16"
    assert lines[0].endswith(", bf16")
    pretend(monkeypatch)
    assert train(config, run_of(config), lines.append) == summary
    assert lines[-1].endswith("not run again")
    apart = replace(config, precision="fp32")
    assert run_of(apart).directory != run_of(config).directory
    assert train(apart, run_of(apart), lines.append).precision == "fp32"


def test_a_broken_run_never_changes_its_precision(monkeypatch, config):
    pretend(monkeypatch)
    run = run_of(config)
    train(replace(config, epochs=2), run, print)
    rewrite = json.loads((run.directory / "summary.json").read_text()) | {"status": "interrupted"}
    (run.directory / "summary.json").write_text(json.dumps(rewrite))
    pretend(monkeypatch, avx512_bf16=True)
    assert train(config, run, print).precision == "fp32"
    with pytest.raises(RunError, match=r"another configuration \(precision: fp32 there, bf16 asked\)"):
        train(replace(config, precision="bf16"), run, print)


def test_a_run_begun_in_bf16_is_not_continued_without_it(monkeypatch, config):
    pretend(monkeypatch, avx512_bf16=True)
    run = run_of(config)
    train(config, run, print)
    rewrite = json.loads((run.directory / "summary.json").read_text()) | {"status": "interrupted"}
    (run.directory / "summary.json").write_text(json.dumps(rewrite))
    pretend(monkeypatch)
    with pytest.raises(ConfigError, match="use precision=fp32"):
        train(config, run, print)
