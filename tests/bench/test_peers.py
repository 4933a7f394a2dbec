"""The benchmark against other packages."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

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
