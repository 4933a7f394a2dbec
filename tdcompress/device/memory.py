"""How much memory there is, how much a process has held, and how the C library deals with it."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

if sys.platform != "win32":
    import resource

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the next step, for the rest of the process.

    By default glibc maps each large activation anew and gives it back once freed; the page faults of doing so step
    after step take 10 to 20 % of a CPU's training time. Where the C library is another, nothing happens.
    """
    if sys.platform == "win32":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def free_memory(device: torch.device) -> float:
    """Bytes that a device, or the machine for its CPU, can still give.

    No more than the control groups of this process leave it, as those of a container or of a job do. Outside Linux it
    is all that the machine has, and infinity on Windows, which is not asked.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable: +(\d+) kB", meminfo.read_text(), re.MULTILINE) if meminfo.exists() else None
    if found:
        return min([int(found[1]) * 1024, *_left(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])
    return math.inf if sys.platform == "win32" else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left(own: Path, groups: Path) -> Iterator[int]:
    """Bytes that each control group of this process has not used of its limit, both versions (man 7 cgroups).

    ``own``: says which groups these are, ``groups``: where they lie. Files that were read count as used until they are
    dropped for others, which they are first.
    """
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = groups / "memory" if kinds else groups
            names = ("limit_in_bytes", "usage_in_bytes") if kinds else ("max", "current")
            place = root / name.strip("/")
            for group in (place, *place.parents[: len(place.parts) - len(root.parts)]):
                with suppress(OSError, ValueError):  # no limit is not said in digits
                    dropped = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
                    limit, used = (int((group / f"memory.{name}").read_text()) for name in names)
                    yield max(0, limit - used + (int(dropped[1]) if dropped else 0))


def peak_memory(device: torch.device) -> float:
    """MB (2**20 bytes) held at most since ``forget_peak``: by tensors on a CUDA device, by the whole process on a CPU.

    Where there is no /proc it is the process's peak since it began, and nan on Windows, which is not asked.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def forget_peak(device: torch.device) -> None:
    """Let ``peak_memory`` begin anew at what is held now (on Linux: proc(5), clear_refs)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine could give no more."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
