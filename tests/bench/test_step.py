"""Benchmarks: that they measure what they say. Nothing here asserts on a time that was really taken."""

from __future__ import annotations

import csv
import gc
import subprocess
import sys
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pytest
import torch
from cases import CASES, IMAGE, IN, Case, assert_close, einsum_dense
from torch import nn

from tdcompress import cli, compress
from tdcompress.bench.hand import hand_chain, hand_network, links
from tdcompress.bench.layers import LayerOptions, bond_size, layer_shapes
from tdcompress.bench.ordinary import ImageDataset, OrdinaryLoop, as_usual
from tdcompress.bench.table import write
from tdcompress.bench.training import Network, TrainingStep
from tdcompress.config.schema import DatasetConfig
from tdcompress.config.words import read
from tdcompress.data.sources import load
from tdcompress.device.clock import compare
from tdcompress.tensor.rank import Reference, Size

pytestmark = pytest.mark.usefixtures("one_thread")
CHAINS = [case for case in CASES if links(case.graph()) is not None]


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """Run ``tdc bench`` in an empty folder: exit code, standard output, standard error, rows of the CSV by name."""
    monkeypatch.chdir(tmp_path)

    def run(line: str):
        code = 0
        try:
            cli.main(["bench", *line.split()])
        except SystemExit as end:
            code = end.code
        rows = {path.stem: list(csv.DictReader(path.open())) for path in tmp_path.glob("results/bench/*.csv")}
        return code, *capfd.readouterr(), rows

    return run


def test_bf16_is_refused_where_it_is_emulated(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("tdcompress.device.precision.native_bf16", lambda device: False)
    code, _, err, _ = bench("layers layers=lenet.conv2 precision=bf16 device=cpu")
    assert code == 2 and err.count("\n") == 1 and "precision=bf16: this CPU has no bf16 arithmetic" in err
    assert not any(tmp_path.iterdir())


def test_which_formats_have_a_hand_chain():
    whole = {"channels-merged-linear", "matrix-merged-conv", "matrix-merged-linear"}  # channel counts not split
    kernels = {"channels-merged-conv", "channels-separate-conv"}
    assert {str(case) for case in CHAINS} == {
        *(f"{format}-{rest}" for format in ("cp", "tt") for rest in whole | kernels),
        *(f"{format}-{rest}" for format in ("tucker", "ht") for rest in whole | {"channels-open-conv"}),
    }


@pytest.mark.parametrize("case", CHAINS, ids=str)
def test_the_hand_chain_computes_the_layer(case: Case):
    torch.manual_seed(0)
    settings = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)} if case.kind == "conv" else {}
    layer = case.layer(twin=case.twin(**settings))
    chain = hand_chain(layer)
    shape = (4, IN, *IMAGE) if case.kind == "conv" else (4, IN)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    weight = einsum_dense(layer.graph, layer.tensors()).reshape(layer.weight_shape)
    wanted = (
        nn.functional.conv2d(x, weight, layer.bias, **settings)
        if case.kind == "conv"
        else nn.functional.linear(x, weight, layer.bias)
    )
    got = chain(z)
    assert_close(got, wanted)
    gradient = torch.randn_like(got)
    wanted.backward(gradient)
    got.backward(gradient)
    assert_close(z.grad, x.grad)
    assert_close(chain.bias.grad, layer.bias.grad)
    for link, kernel in zip(chain.links, chain.weights, strict=True):
        core = layer.tensors()[link.core]
        assert_close(kernel.grad.reshape(-1), core.grad.permute(link.order).reshape(-1))


def test_a_hand_chain_makes_no_copies():
    layer = compress(nn.Sequential(nn.Conv2d(8, 12, 3)), "tucker", 4, (8, 6, 6), keep=[])[0]
    for kernel in hand_chain(layer).weights:
        assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_every_convolution_of_a_network_is_written_by_hand_or_none():
    def network():
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 6))

    images = torch.randn(2, 4, 8, 8)
    model = compress(network(), "tucker", 3, (4, 8, 8), keep=[])
    torch.testing.assert_close(hand_network(model)(images), model(images), rtol=1e-4, atol=1e-5)
    ring = {"format": "tr", "allow_larger": True}
    assert hand_network(compress(network(), "tucker", 3, (4, 8, 8), keep=[], layers={"2": ring})) is None
    mixed = compress(network(), "tucker", 3, (4, 8, 8), keep=[], layers={"4": ring})
    torch.testing.assert_close(hand_network(mixed)(images), mixed(images), rtol=1e-4, atol=1e-5)
    assert hand_network(network()) is None


class Clock:
    """A clock that only calls move on, each by the next of its durations; the last one lasts."""

    def __init__(self) -> None:
        self.now, self.made = 0.0, []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *durations: float):
        number = count()

        def made() -> None:
            self.made.append((name, gc.isenabled()))
            self.now += durations[min(next(number), len(durations) - 1)]

        return made


def test_ratios_are_taken_pair_by_pair():
    clock = Clock()
    ours, rival = clock.call("ours", 7, 7, 1, 10, 3), clock.call("rival", 9, 9, 2, 5, 30)
    pairs = compare(ours, {"rival": rival}, 3, clock)["rival"]
    assert (pairs.ours, pairs.rival) == ([1, 10, 3], [2, 5, 30])
    assert (pairs.ours_ms, pairs.rival_ms) == (3000, 5000)
    assert (pairs.ratio, pairs.speedup) == (0.5, 2)  # of the medians they were 0.6 and 1.67
    timed = clock.made[4:]
    assert [name for name, _ in timed] == ["ours", "rival", "rival", "ours", "ours", "rival"]
    assert not any(enabled for _, enabled in timed) and gc.isenabled()


def test_every_rival_gets_a_pair_of_its_own():
    clock = Clock()
    pairs = compare(clock.call("a", 1), {"b": clock.call("b", 2), "c": clock.call("c", 4)}, 2, clock)
    assert [name for name, _ in clock.made[6:]] == list("abacbaca")
    assert pairs["b"].ratio == 0.5 and pairs["c"].ratio == 0.25


def test_short_calls_are_made_many_times_over():
    clock = Clock()
    pairs = compare(clock.call("short", 1 / 1024), {"long": clock.call("long", 1)}, 1, clock)
    assert [name for name, _ in clock.made[4:]] == ["short"] * 6 + ["long"]
    assert pairs["long"].ours == [1 / 1024] and pairs["long"].rival == [1]


def test_a_csv_has_every_column_of_every_row(tmp_path):
    path = write([{"a": 1, "b": 0.123456789}, {"a": None, "c": "x, y"}], tmp_path, "some")
    assert path == tmp_path / "bench" / "some.csv"
    assert path.read_text().splitlines() == ["a,b,c", "1,0.123457,", ',,"x, y"']


BAD = {
    "": "tdc bench needs a benchmark, known: layers, step, infer, loop",
    "layer": "unknown benchmark 'layer', known: layers, step, infer, loop",
    "layers rnak=3": "unknown key 'rnak' (did you mean rank?), known: method, repeats, threads,",
    "layers rank": "'rank' is not of the form key=value",
    "layers rank=": "rank has no value",
    "layers rank=much": "rank=much is not a whole number",
    "layers method=cp,cq": "unknown format 'cq', known: cp,",
    "layers layers=alexnet.*": "layers=alexnet.* fits none of vgg16.conv1_2,",
    "layers precision=fp16": "unknown precision 'fp16', known: auto, fp32, bf16",
    "layers device=tpu": "unknown device 'tpu', known: auto, cpu, cuda",
    "layers plan=best layers=lenet.conv2": "unknown plan 'best'",
    "layers repeats=0": "repeats=0 is not a whole number of at least 1",
    "layers allow_larger=perhaps": "allow_larger=perhaps is not true or false",
    "step layout=rows": "unknown layout 'rows', known: channels, matrix,",
    "step threads=two": "threads=two is not a whole number of at least 1",
    "step width=0": "width=0 is not a number greater than 0",
    "step arch=resnet": "unknown arch 'resnet'",
    "step dataset=svhn": "unknown dataset 'svhn'",
    "loop dataset=svhn": "unknown dataset 'svhn'",
    "loop limit=none": "limit=none is not a whole number of at least 1",
    "loop method=cq": "unknown format 'cq'",
    "loop dataset=image_folder": "needs dataset.root=DIR",
    "step parameters=cp": "parameters=cp is not METHOD:RANK, for example",
    "step parameters=cq:8": "unknown format 'cq'",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_options_get_one_line(bench, tmp_path, line):
    code, _, err, _ = bench(line)
    assert code == 2
    assert err.startswith("tdc: ") and err.count("\n") == 1 and BAD[line] in err
    assert not any(tmp_path.iterdir())


def test_options_take_their_types():
    options = read(["method=cp,tt", "rank=8,full", "threads=2", "layers=lenet.*"], LayerOptions)
    assert (options.method, options.rank, options.threads) == (("cp", "tt"), ("8", "full"), 2)
    assert options.layers == ("lenet.*",) and options.precision == "auto"


def test_the_layers_are_those_that_the_networks_factorise():
    shapes = {shape.name: shape for shape in layer_shapes()}
    assert len(shapes) == 12 and all(shape.layer.weight.is_meta for shape in shapes.values())
    assert tuple(shapes["vgg16.conv4_1"].layer.weight.shape) == (512, 256, 3, 3)
    assert shapes["vgg16.conv4_1"].input_shape == (256, 4, 4)
    assert tuple(shapes["lenet.fc1"].layer.weight.shape) == (128, 9216)
    assert tuple(shapes["linear4096"].layer.weight.shape) == (4096, 4096)


def test_full_and_half_are_of_what_a_bond_can_use():
    sizes = {rank: bond_size(rank, (12, 8, 3, 3), "tt") for rank in ("full", "half", "7", "reference")}
    assert sizes == {"full": Size(12), "half": Size(6), "7": Size(7), "reference": Reference()}
    assert bond_size("full", (12, 8, 3, 3), "tucker") == Size(12)


def test_layers_end_to_end(bench):
    line = "layers layers=lenet.conv2 method=cp,tr rank=2,reference batch_size=2 repeats=2 threads=1"
    code, out, err, rows = bench(line)
    assert (code, err) == (0, "") and "results/bench/layers.csv" in out
    by_name = {(row["method"], row["rank"]): row for row in rows["layers"]}
    assert list(by_name) == [("cp", "2"), ("cp", "reference"), ("tr", "2"), ("tr", "reference")]
    row = by_name["cp", "2"]
    assert row["ranks"] == "r=2" and row["parameters"] == str(2 * (32 + 9 + 64)) and row["dense_parameters"] == "18432"
    assert row["dense_macs"] == str(18432 * 24 * 24) and row["shape"] == "64x32x3x3" and row["input"] == "32x26x26"
    assert "1 threads" in row["device"] and row["torch"] == torch.__version__ and row["repeats"] == "2"
    assert all(float(row[key]) > 0 for key in ("ms", "dense_ms", "ratio", "hand_ms", "hand_ratio", "macs"))
    assert by_name["tr", "2"]["hand_ms"] == "" and by_name["tr", "2"]["plan"]


def test_layers_in_bfloat16(bench, monkeypatch):
    monkeypatch.setattr("tdcompress.device.precision.native_bf16", lambda device: True)
    code, _, err, rows = bench("layers layers=lenet.conv2 method=tt rank=8 batch_size=2 repeats=1 precision=bf16")
    assert (code, err) == (0, "") and rows["layers"][0]["precision"] == "bf16"


def test_plans_are_measured(bench):
    line = "layers layers=lenet.conv2 method=tucker,tt rank=full batch_size=2 repeats=1 plan=measure allow_larger=true"
    code, _, err, rows = bench(line)
    assert (code, err) == (0, "") and all("core" in row["plan"] for row in rows["layers"])
    code, _, err, rows = bench(line.replace("=true", "=false"))
    assert (code, err) == (0, "") and [row["plan"] for row in rows["layers"]] == ["dense", "dense"]


STEP = "step arch=lenet dataset=digits width=0.25 batch_size=4 repeats=2"


def test_step_end_to_end(bench):
    code, out, err, rows = bench(f"{STEP} method=tt rank=4 parameters=")
    assert code == 2 and "parameters has no value" in err
    code, out, err, rows = bench(f"{STEP} method=tt rank=4")
    assert (code, err) == (0, "") and "results/bench/step.csv" in out
    (row,) = rows["step"]
    model = TrainingStep(Network("lenet", 0.25, "digits", 4, "fp32", "tt", 4, "model"), torch.device("cpu")).model
    assert row["parameters"] == str(sum(p.numel() for p in model.parameters()))
    assert int(row["macs"]) < int(row["dense_macs"]) and "base_ms" not in row
    for key in ("ms", "dense_ms", "speedup", "hand_ms", "hand_ratio", "memory_mb", "dense_memory_mb", "memory_ratio"):
        assert float(row[key]) > 0


def test_every_method_at_the_size_of_one(bench, monkeypatch):
    monkeypatch.setattr("tdcompress.bench.step.step_memory", lambda step: 1.0)
    code, _, err, rows = bench(f"{STEP} repeats=1 width=0.5 method=tr,tt parameters=tucker:4")
    assert (code, err) == (0, "")
    base = TrainingStep(Network("lenet", 0.5, "digits", 4, "fp32", "tucker", 4, "model"), torch.device("cpu"))
    for row in rows["step"]:
        assert row["rank"] == f"params:{base.parameters}" and row["base"] == "tucker:4"
        assert abs(int(row["parameters"]) / base.parameters - 1) <= 0.02
        assert float(row["base_ms"]) > 0 and float(row["base_ratio"]) > 0


def test_a_training_step_trains():
    step = TrainingStep(Network("lenet", 0.25, "digits", 8, "fp32", "tucker", 4, "model"), torch.device("cpu"))
    before = [p.detach().clone() for p in step.model.parameters()]
    step()
    assert all(not torch.equal(old, new) for old, new in zip(before, step.model.parameters(), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the high-water mark of the set-up stays")
def test_peak_memory_is_what_a_step_takes_above_the_setup():
    code = """
import torch
from tdcompress.bench import memory

class Step:
    def __init__(self, network, device, paths):
        self.kept = torch.ones(50 * 2**18)  # 50 MB that stay
        torch.ones(200 * 2**18)  # and 200 MB that do not

    def __call__(self):
        torch.ones(64 * 2**18)

memory.TrainingStep = Step
memory.main(json.dumps({"network": NETWORK, "paths": None, "device": "cpu", "threads": 1}))
"""
    network = asdict(Network("lenet", 1.0, "digits", 4, "fp32", "tt", 4, "model"))
    done = subprocess.run(
        [sys.executable, "-c", f"import json; NETWORK = {network!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 62 < float(done.stdout) < 72


def test_loop_end_to_end(bench):
    code, out, err, rows = bench("loop limit=40 width=0.25 batch_size=20 repeats=1 method=tt rank=4")
    assert (code, err) == (0, "") and "results/bench/loop.csv" in out
    (row,) = rows["loop"]
    assert (row["method"], row["rank"], row["images"]) == ("tt", "4", "40")
    assert all(float(row[key]) > 0 for key in ("images_per_second", "ordinary_images_per_second", "speedup"))


def test_the_ordinary_network_is_of_torchs_own_modules():
    class Dropout(nn.Dropout):
        pass

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), Dropout(0.3)), nn.ReLU())
    images = torch.randn(2, 1, 8, 8)
    wanted = model.eval()(images)
    usual = as_usual(model)
    assert [type(layer) for layer in usual[1]] == [nn.ReLU, nn.MaxPool2d, nn.Dropout] and usual[1][2].p == 0.3
    assert torch.equal(usual.eval()(images), wanted)


def test_the_ordinary_loop_learns_what_ours_does():
    config = DatasetConfig(name="digits", limit=500, padding=1, flip=True)
    arrays = load(config)
    plain = ImageDataset(arrays, DatasetConfig())
    mean, std = arrays.train_images.double().mean(), arrays.train_images.double().std(correction=0)
    image, label = plain[7]
    wanted = (arrays.train_images[7, ..., 0].double() - mean) / std
    torch.testing.assert_close(image[0].double(), wanted, rtol=1e-5, atol=1e-5)
    assert label == int(arrays.train_labels[7])
    augmented = ImageDataset(arrays, config)
    assert any(not torch.equal(augmented[7][0], augmented[7][0]) for _ in range(5))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    epoch = OrdinaryLoop(model, plain, 100, torch.device("cpu"))
    before, after = epoch(), [epoch() for _ in range(4)][-1]
    assert after[0] < before[0] and after[1] > max(before[1], 0.8)


def test_peers_compute_the_same_layers(tmp_path):
    pytest.importorskip("tltorch")
    pytest.importorskip("tednet")
    script = Path(__file__).parents[2] / "scripts" / "bench_peers.py"
    words = ["layers=vgg16.conv2_1,lenet.fc1", "rank=3", "batch_size=2", "small_batch=1", "repeats=1"]
    subprocess.run([sys.executable, str(script), *words, f"results_dir={tmp_path}"], capture_output=True, check=True)
    rows = list(csv.DictReader((tmp_path / "bench" / "peers.csv").open()))
    assert {row["peer"] for row in rows} == {"tednet", "tensorly-torch factorized", "tensorly-torch reconstructed"}
    for row in rows:
        if row["peer"] == "tednet":
            assert row["parameters"] == row["peer_parameters"] and row["difference"] == ""
        else:
            assert float(row["difference"]) < 1e-4


def test_infer_writes_a_row_for_each_batch(bench):
    code, _, _, rows = bench(
        "infer method=tt,cp arch=lenet dataset=mnist width=0.25 rank=2 repeats=1 batch_size=1,3 threads=1"
    )
    assert code == 0
    found = rows["infer"]
    assert [(row["method"], row["batch_size"]) for row in found] == [
        ("tt", "1"), ("cp", "1"), ("tt", "3"), ("cp", "3"),
    ]  # fmt: skip
    for row in found:
        assert int(row["parameters"]) < 80 + 1_168 + 73_760 + 330  # dense: conv1, conv2, fc1, fc2
        assert all(float(row[column]) > 0 for column in ("ms", "dense_ms", "folded_ms", "speedup", "folded_speedup"))
