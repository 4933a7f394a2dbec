"""What the machine offers, as a report shows it."""

from __future__ import annotations

import importlib.metadata

import torch

from tdcompress.device.machine import choose_device
from tdcompress.device.precision import native_bf16
from tdcompress.results.version import version


def _said(out):
    return dict(line.split("  ", 1) for line in out.splitlines())


def test_a_line_for_each_thing(tdc, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "here/MNIST/raw").mkdir(parents=True)
    (tmp_path / "here/MNIST/raw/train-images-idx3-ubyte").write_bytes(b"0")
    code, out, err = tdc("doctor root=here")
    assert (code, err) == (0, "")
    said = {name: text.strip() for name, text in _said(out).items()}
    assert said["tdcompress"] == version() and said["torch"].startswith(str(torch.__version__))
    assert said["device"].startswith(f"{choose_device('auto').type} (device=auto): ")
    assert said["bf16"].startswith("native" if native_bf16(choose_device("auto")) else "not native")
    assert f"{torch.get_num_threads()} of torch" in said["threads"] and "OMP_NUM_THREADS=3" in said["threads"]
    assert said["data mnist"] == "in here/MNIST/raw" and said["data cifar10"].startswith("not in here/cifar-10")
    assert said["runs"] == "0 in results/runs"


def test_what_is_missing_is_named_with_its_extra(tdc, monkeypatch):
    known = importlib.metadata.version

    def without(package):
        if package == "submitit":
            raise importlib.metadata.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setattr(importlib.metadata, "version", without)
    extras = {name.removeprefix("extra "): text for name, text in _said(tdc("doctor")[1]).items() if "extra" in name}
    assert extras["slurm"].strip() == "submitit missing: pip install 'tdcompress[slurm]'"
    assert set(extras) == {"export", "peers", "slurm", "tensorboard", "video"}
