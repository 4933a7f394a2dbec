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
