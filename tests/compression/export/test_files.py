"""Exported files: what a reader without this package gets from them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tdcompress import cli
from tdcompress.cli.export import load
from tdcompress.compression import export
from tdcompress.compression.export import WRITERS, Writer
from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.device.files import RunError
from tdcompress.models import build as archs
from tdcompress.results.identity import run_directory
from tdcompress.results.run import Run
from tdcompress.tensor.formats import FORMATS
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainConfig(
    dataset=DatasetConfig("digits", image_size=16, limit=100),
    arch=ArchConfig("lenet", width=0.25),
    optim=OptimConfig({"_target_": "torch.optim.SGD", "momentum": 0.9}),
    epochs=1,
    batch_size=50,
    device="cpu",
    precision="fp32",
)
READER = """
import sys
sys.modules["tdcompress"] = None  # an import of it would fail
import torch
images = torch.load(sys.argv[2])
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    scores = torch.from_numpy(onnxruntime.InferenceSession(sys.argv[1]).run(None, {"images": images.numpy()})[0])
else:
    scores = torch.export.load(sys.argv[1]).module()(images)
torch.save(scores.detach(), sys.argv[3])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_thread):
    """The folder of a run of this method, trained once."""
    place, found = tmp_path_factory.mktemp("runs"), {}

    def folder(method: str, rank: int | str = 4) -> Path:
        if (method, rank) not in found:
            epochs = 2 if str(rank).startswith("adaptive") else 1
            changes = {"method": MethodConfig(method), "rank": rank, "results_dir": str(place), "epochs": epochs}
            config = replace(CONFIG, **changes)
            directory = run_directory(config, config)
            train(config, Run(directory), lambda line: None)
            found[method, rank] = directory
        return found[method, rank]

    return folder


def tdc_export(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(["export", *line.split()])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def scores_of(directory: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return load(directory).factorised(images)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_reader_without_this_package_computes_the_same(trained, tmp_path, capsys, kind):
    directory = trained("tt", "adaptive:8x")  # its layers are smaller than those that training began with
    file = tmp_path / WRITERS[kind].name
    code, out, _ = tdc_export(f"run={directory} format={kind} output={file}", capsys)
    assert code == 0
    assert out.splitlines()[-1] == str(file)
    assert all(name in out for name in ("as trained", "folded", "dense", file.name))
    for batch in (1, 7):
        images = torch.randn(batch, 1, 16, 16)
        torch.save(images, tmp_path / "images.pt")
        subprocess.run(
            [sys.executable, "-c", READER, str(file), "images.pt", "scores.pt"], cwd=tmp_path, check=True, timeout=120
        )
        torch.testing.assert_close(
            torch.load(tmp_path / "scores.pt"), scores_of(directory, images), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("method", sorted(FORMATS))
def test_the_dense_twin_of_every_format(trained, tmp_path, capsys, method):
    directory = trained(method)
    file = tmp_path / "twin.pt"
    assert tdc_export(f"run={directory} format=dense output={file}", capsys)[0] == 0
    model = archs.build(CONFIG.arch, 1, 10, 16).eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    images = torch.randn(3, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), scores_of(directory, images), rtol=1e-4, atol=1e-4)


def test_a_file_that_computes_something_else_is_not_written(trained, tmp_path):
    path = tmp_path / "wrong.pt"
    wrong = Writer("wrong.pt", lambda trained: b"wrong", lambda content, trained: lambda x: trained.dense(x) + 2e-4)
    with pytest.raises(RunError, match=r"is not written: its outputs for 1 images differ .* by 2\.\de-04"):
        export.export(load(trained("tt")), wrong, path)
    assert not path.exists()


REFUSED = {
    "format=onnx": "tdc export needs run=",
    "run={run}": "tdc export needs format=",
    "run={run} format=jpeg": "unknown format 'jpeg', known: onnx, torch, dense",
    "run={run} format=torch plan=fast": "unknown plan 'fast', known: ",
    "run={run} colour=red": "unknown key 'colour', known: run, format, output, plan",
    "run={run}/nowhere format=torch": "there is no run in",
    "run={empty} format=torch": "has no checkpoint",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_one_line(trained, tmp_path, capsys, line):
    (tmp_path / "empty").mkdir()
    code, out, err = tdc_export(line.format(run=trained("tt"), empty=tmp_path / "empty"), capsys)
    assert code == 2
    assert REFUSED[line] in err
    assert err.count("\n") == 1 and not out


def test_an_extra_that_is_not_installed_is_named(trained, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = tdc_export(f"run={trained('tt')} format=onnx", capsys)
    assert code == 2
    assert "format=onnx needs onnx: pip install -e '.[export]'" in err
