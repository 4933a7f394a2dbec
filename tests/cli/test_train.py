"""One training from the command line: a whole one of each format, and one whose reader leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tdcompress.tensor.formats import FORMATS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("method", sorted(FORMATS))
def test_each_format_learns_the_digits(tdc, tmp_path, method):
    code, out, err = tdc(f"train method={method} rank=reference arch.width=0.5 epochs=8 batch_size=50")
    assert (code, err) == (0, "")
    (path,) = tmp_path.glob("results/runs/digits/lenet/*/seed0/summary.json")
    summary = json.loads(path.read_text())
    assert summary["status"] == "finished" and summary["method"] == method
    assert summary["test_accuracy"] >= 0.9
    assert str(path.parent.relative_to(tmp_path)) in out
    assert (path.parent / ".hydra" / "overrides.yaml").read_text().startswith(f"- method={method}\n")
    assert len((path.parent / "metrics.csv").read_text().splitlines()) == 9


def test_a_reader_that_leaves_is_no_error(tmp_path):
    words = [sys.executable, "-m", "tdcompress", "train", "dataset.limit=100", "arch.width=0.25", "epochs=1000"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
