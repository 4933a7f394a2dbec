"""The benchmark of single layers."""

from __future__ import annotations

import pytest
import torch

from tdcompress.bench.layers import bond_size, layer_shapes
from tdcompress.tensor.rank import Reference, Size

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_layers_end_to_end(bench, timed):
    timed("layers", dense=4.0, hand=0.5)
    line = "layers layers=lenet.conv2 method=cp,tr rank=2,reference batch_size=2 repeats=2 threads=1"
    code, out, err, rows = bench(line)
    assert (code, err) == (0, "") and "results/bench/layers.csv" in out
    by_name = {(row["method"], row["rank"]): row for row in rows["layers"]}
    assert list(by_name) == [("cp", "2"), ("cp", "reference"), ("tr", "2"), ("tr", "reference")]
    row = by_name["cp", "2"]
    assert row["ranks"] == "r=2" and row["parameters"] == str(2 * (32 + 9 + 64)) and row["dense_parameters"] == "18432"
    assert row["dense_macs"] == str(18432 * 24 * 24) and row["shape"] == "64x32x3x3" and row["input"] == "32x26x26"
    assert "1 threads" in row["device"] and row["torch"] == torch.__version__ and row["repeats"] == "2"
    assert [float(row[key]) for key in ("ms", "dense_ms", "hand_ms")] == [1000, 4000, 500]
    assert [float(row[key]) for key in ("ratio", "hand_ratio")] == [0.25, 2] and float(row["macs"]) > 0
    assert by_name["tr", "2"]["hand_ms"] == "" and by_name["tr", "2"]["plan"]


def test_layers_in_bfloat16(bench, monkeypatch):
    monkeypatch.setattr("tdcompress.device.precision.native_bf16", lambda device: True)
    code, _, err, rows = bench("layers layers=lenet.conv2 method=tt rank=8 batch_size=2 repeats=1 precision=bf16")
    assert (code, err) == (0, "") and rows["layers"][0]["precision"] == "bf16"


def test_plans_are_measured(bench):
    line = "layers layers=lenet.conv2 method=tucker,tt rank=full batch_size=2 repeats=1 plan=measure allow_larger=true"
    code, _, err, rows = bench(line)
    assert (code, err) == (0, "") and all("core" in row["plan"] for row in rows["layers"])
    code, _, err, _ = bench(line.replace("=true", "=false"))
    assert code == 2 and "its cores would hold no fewer entries" in err and err.count("\n") == 1
