"""The benchmark against other packages, and networks of their layers."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tdcompress.config.schema import ArchConfig
from tdcompress.models.build import build

pytestmark = pytest.mark.usefixtures("one_thread")


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


KERNELS = {"cp": "r,or,ir,hr,wr->oihw", "tucker": "abcd,oa,ib,hc,wd->oihw", "tt": "xia,ahb,bwc,coy->oihw"}
MATRICES = {"cp": "r,or,ir->oi", "tucker": "ab,oa,ib->oi", "tt": "xpqa,arsb,btuz->prtqsu"}


@pytest.mark.parametrize("method", KERNELS)
def test_a_network_of_theirs_starts_from_the_dense_weights(tmp_path, monkeypatch, method):
    pytest.importorskip("tltorch")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    torch.manual_seed(0)
    model = build(ArchConfig("lenet5", width=0.25), 1, 10, 28)
    torch.save(model.state_dict(), tmp_path / "dense.pt")
    words = ["dataset=digits", "arch=lenet5", "arch.width=0.25", f"results_dir={tmp_path}"]
    peer_network = importlib.import_module("peer_network")
    peer_network.run([*words, f"init_from={tmp_path}/dense.pt", f"method={method}", "rank=8"])
    (file,) = tmp_path.glob("peers/digits/lenet5/*/seed0.pt")

    theirs = torch.load(file)["model"]
    dense = {name: value for name, value in theirs.items() if ".weight." not in name}
    for name, shape in (("conv2.weight", (12, 5, 5, 5)), ("fc1.weight", model.fc1.weight.shape)):
        tensors = [value for key, value in theirs.items() if key.startswith(f"{name}.")]
        dense[name] = torch.einsum((KERNELS if len(shape) == 4 else MATRICES)[method], *tensors).reshape(shape)
    model.load_state_dict(dense)
    network = peer_network.network(1, 10, 28, str(file))
    network.load_state_dict(theirs)
    images = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(network.eval()(images), model.eval()(images), rtol=1e-3, atol=1e-4)
