"""Memory that is freed is used again, and the peak is in MB."""

import platform
import subprocess
import sys

import pytest
import torch

from tdcompress.device import memory

FAULTS = """if True:
    import resource, sys, torch
    from tdcompress.device.memory import keep_freed_memory
    if sys.argv[1] == "keep":
        keep_freed_memory()
    def faults(size):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(size, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    sizes = (3 << 20, 20 << 20, 70 << 20)  # above 32 MB glibc's mmap threshold cannot be raised
    for _ in range(5):  # until the heap has grown to what is needed
        [faults(size) for size in sizes]
    print(sum(faults(size) for _ in range(5) for size in sizes))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory its own way")
def test_freed_memory_is_not_mapped_anew():
    anew, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, word], text=True)) for word in ("default", "keep")
    )
    assert kept < 50
    assert kept < anew / 3


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.keep_freed_memory()


def test_peak_is_in_megabytes():
    code = """if True:
        import torch
        from tdcompress.device.memory import peak_memory
        torch.ones(300 << 20, dtype=torch.uint8)
        print(peak_memory(torch.device("cpu")))
    """
    # A process starts with the peak of the one that made it, so only the order of magnitude is known.
    assert 300 < float(subprocess.check_output([sys.executable, "-c", code], text=True)) < 10_000


def test_peak_of_a_cuda_device_is_what_tensors_held(monkeypatch):
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 3 << 20)
    assert memory.peak_memory(torch.device("cuda")) == 3


@pytest.mark.parametrize(
    ("own", "place", "names"),
    [
        ("0::/job/step", "", ("memory.max", "memory.current")),
        ("9:name=systemd:/\n8:cpu,memory:/job/step", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_what_control_groups_leave(tmp_path, own, place, names):
    (tmp_path / "own").write_text(own + "\n")
    for group, values in (("", None), ("job", (900, 500)), ("job/step", ("max", 300))):
        folder = tmp_path / "groups" / place / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, values or (), strict=False):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text("active_file 7\ninactive_file 40\n")
    assert list(memory._left(tmp_path / "own", tmp_path / "groups")) == [440]
    assert list(memory._left(tmp_path / "none", tmp_path / "groups")) == []
    assert 0 < memory.free_memory(torch.device("cpu")) < float("inf")
