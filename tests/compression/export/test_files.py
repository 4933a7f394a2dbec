"""Exported files: what a reader without this package gets from them, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

import tdcompress
from tdcompress import cli
from tdcompress.cli.export import load
from tdcompress.compression.export.files import WRITERS, Writer, export
from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.sources import load as load_data
from tdcompress.device.files import RunError
from tdcompress.models import build as archs
from tdcompress.results.identity import run_directory
from tdcompress.results.record import Summary, read_summary
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run
from tdcompress.tensor.formats import FORMATS
from tdcompress.train.run import train
from tdcompress.train.weights import read_weights

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
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    read = lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
else:
    read = torch.export.load(sys.argv[1]).module()
torch.save([read(images).detach() for images in torch.load(sys.argv[2])], sys.argv[3])
"""


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr("tdcompress.compression.comparison._ROUNDS", 2)


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
    assert_told(out, directory, kind, file)
    batches = [torch.randn(batch, 1, 16, 16) for batch in (1, 7)]
    torch.save(batches, tmp_path / "images.pt")
    subprocess.run(
        [sys.executable, "-c", READER, str(file), "images.pt", "scores.pt"], cwd=tmp_path, check=True, timeout=120
    )
    for images, scores in zip(batches, torch.load(tmp_path / "scores.pt"), strict=True):
        torch.testing.assert_close(scores, scores_of(directory, images), rtol=1e-4, atol=1e-4)


def assert_told(out: str, directory: Path, kind: str, file: Path) -> None:
    """Before and after in the output, after in the run's summary and in the table of runs."""
    lines = dict(re.findall(r"^(\w.*?)  +(\S.*?) *$", out, re.MULTILINE))
    size, summary = file.stat().st_size, read_summary(directory)
    assert f"=> {size:,} " in " ".join(lines["bytes"].split())
    if kind != "torch":  # which is folded
        assert f"=> {summary.parameters:,} " in " ".join(lines["parameters"].split())
    assert f"{summary.test_accuracy:.2%} => {summary.test_accuracy:.2%} +0.00 points" in " ".join(
        lines["test accuracy"].split()
    )
    assert {"ms, batch 1", "ms, batch 64"} <= lines.keys()
    found = summary.exports[-1]
    assert (found["format"], found["weights"], found["bytes"]) == (kind, WRITERS[kind].weights[0], size)
    assert all(found[key][batch] > 0 for key in ("ms", "speedup") for batch in ("1", "64"))
    results_dir, name = directory.parents[4], directory.parts[-2]
    (row,) = (row for row in read_runs(results_dir).to_dict("records") if name in row["directory"])
    told = {one["kind"]: [one["bytes"], *one["ms"].values()] for one in summary.exports}  # the table tells of one kind
    assert [row["exported_bytes"], row["exported_ms"], row["exported_ms_64"]] == told[row["exported"]]


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_file_says_how_pixels_become_what_it_takes(trained, tmp_path, capsys, kind):
    directory, file = trained("tt"), tmp_path / WRITERS[kind].name
    _, out, _ = tdc_export(f"run={directory} format={kind} output={file}", capsys)
    said: dict[str, str] = {"mean": "", "std": ""}
    if kind == "onnx":
        said = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    else:
        torch.export.load(file, extra_files=said)
    mean, std = (torch.tensor(json.loads(said[key])) for key in ("mean", "std"))
    data = load_data(CONFIG.dataset)
    pixels = data.train_images.double()
    assert float(mean) == pytest.approx(float(pixels.mean())) and float(std) == pytest.approx(float(pixels.std()), 1e-4)
    assert f"by channel: mean {float(mean):.6g}; std {float(std):.6g}\n" in out
    images = ((data.test_images - mean) / std).permute(0, 3, 1, 2).float()
    right = scores_of(directory, images).argmax(1) == data.test_labels
    assert float(right.double().mean()) == pytest.approx(read_summary(directory).test_accuracy)


def test_a_torch_program_keeps_cores_if_asked_to(trained, tmp_path, capsys):
    directory, file = trained("tt"), tmp_path / "cores.pt2"
    code, out, _ = tdc_export(f"run={directory} format=torch weights=cores output={file} test=false", capsys)
    assert code == 0 and "test accuracy" not in out
    entries = sum(tensor.numel() for tensor in torch.export.load(file).state_dict.values())
    network, summary = load(directory), read_summary(directory)
    folded = sum(p.numel() for p in network.holding("folded").parameters())
    assert summary.parameters <= entries < 1.1 * summary.parameters < folded
    assert (summary.exports[-1]["kind"], summary.exports[-1]["weights"]) == ("torch cores", "cores")


def test_a_file_of_layers_is_loaded_as_they_were_trained(trained, tmp_path, capsys):
    directory, file = trained("tt", "adaptive:8x"), tmp_path / "model.safetensors"
    code, out, _ = tdc_export(f"run={directory} format=safetensors output={file}", capsys)
    assert code == 0
    assert_told(out, directory, "safetensors", file)
    model = tdcompress.load(file, archs.build(CONFIG.arch, 1, 10, 16)).eval()
    images, run = torch.randn(3, 1, 16, 16), load(directory)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), scores_of(directory, images))
    held = run.factorised.state_dict()
    assert all(torch.equal(held.pop(key), value) for key, value in model.state_dict().items()) and not held
    assert read_weights(str(file)).config == read_weights(str(directory)).config


def test_a_run_that_goes_on_has_no_export_in_its_summary(trained, tmp_path, capsys):
    directory, file = tmp_path / "run", tmp_path / "twin.pt"
    shutil.copytree(trained("tt"), directory)
    going = replace(read_summary(directory), status="running", exports=[])
    Run(directory).write_summary(going)
    code, out, _ = tdc_export(f"run={directory} format=dense output={file} test=false", capsys)
    assert code == 0 and file.exists()
    assert f"not in the run's summary: {directory} has not ended" in out
    assert read_summary(directory) == going


@pytest.mark.parametrize("method", sorted(FORMATS))
def test_the_dense_twin_of_every_format(trained, tmp_path, capsys, method):
    directory = trained(method)
    file = tmp_path / "twin.pt"
    assert tdc_export(f"run={directory} format=dense output={file} test=false", capsys)[0] == 0
    model = archs.build(CONFIG.arch, 1, 10, 16).eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    images = torch.randn(3, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), scores_of(directory, images), rtol=1e-4, atol=1e-4)


def test_a_file_that_computes_something_else_is_not_written(trained, tmp_path):
    path = tmp_path / "wrong.pt"
    wrong = Writer("wrong.pt", lambda *_: b"wrong", lambda content, network: lambda x: network(x) + 2e-4)
    network = load(trained("tt"))
    with pytest.raises(RunError, match=r"is not written: its outputs for 1 images differ .* by 2\.\de-04"):
        export(network, wrong, network.dense, path)
    assert not path.exists()


REFUSED = {
    "format=onnx": "tdc export needs run=",
    "run={run}": "tdc export needs format=",
    "run={run} format=jpeg": "unknown format 'jpeg', known: onnx, torch, safetensors, dense",
    "run={run} format=torch weights=thin": "unknown weights 'thin', known: cores, folded",
    "run={run} format=dense weights=cores": "format=dense holds dense weights: leave weights=cores out",
    "run={run} format=safetensors weights=folded": "format=safetensors holds cores: leave weights=folded out",
    "run={dense} format=safetensors test=false": "this Sequential holds no cores: compress it first",
    "run={run} colour=red": "unknown key 'colour', known: run, format, output, weights, test",
    "run={run}/nowhere format=torch": "there is no run in",
    "run={seeds} format=torch": "has runs of several seeds: name one, ",
    "run={empty} format=torch": "has no checkpoint: no run is there",
    "run={diverged} format=torch": "has no checkpoint: it diverged, and none is kept of that",
    "run={damaged} format=torch": "checkpoint.pt is damaged: delete the run's folder, and tdc train makes it",
    "run={run} format=safetensors output=cores": "output=cores must end in .safetensors",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_one_line(trained, tmp_path, capsys, line):
    places = {name: tmp_path / name for name in ("empty", "diverged", "damaged", "seeds")}
    for place in (*places.values(), places["seeds"] / "seed0"):
        place.mkdir()
    Run(places["diverged"]).write_summary(Summary("diverged"))
    (places["damaged"] / "checkpoint.pt").write_bytes(b"PK")
    code, out, err = tdc_export(line.format(run=trained("tt"), dense=trained("dense"), **places), capsys)
    assert code == 2
    assert REFUSED[line] in err
    assert err.count("\n") == 1 and out.count("\n") == line.startswith("run={damaged}")  # which says what of it


def test_an_extra_that_is_not_installed_is_named(trained, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = tdc_export(f"run={trained('tt')} format=onnx", capsys)
    assert code == 2
    assert "model.onnx needs onnx: pip install -e '.[export]'" in err
