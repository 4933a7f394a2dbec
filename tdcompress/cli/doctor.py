"""``tdc doctor``: what this machine offers, to paste into a report.

tdc doctor                   # device, precision, threads, optional packages, data at hand
tdc doctor root=DIR          # data in another folder than data/
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config.words import read
from ..data.table import DATASETS
from ..device.machine import choose_device, device_name
from ..device.memory import free_memory
from ..device.precision import native_bf16
from ..results.version import version
from .shared.filters import Place


@dataclass(frozen=True)
class DoctorOptions(Place):
    """``root``: the folder in which data are looked for."""

    root: str = "data"


def run(words: Sequence[str]) -> None:
    """Print a line for each thing that decides how fast, and whether, a command works here."""
    options = read(words, DoctorOptions)
    found = [*_software(), *_device(), *_extras(), *_data(Path(options.root)), *_places(Path(options.results_dir))]
    width = max(len(name) for name, _ in found)
    for name, said in found:
        print(f"{name:<{width}}  {said}")


def _software() -> Iterator[tuple[str, str]]:
    yield "tdcompress", version()
    yield "torch", f"{torch.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _device() -> Iterator[tuple[str, str]]:
    device = choose_device("auto")
    yield "device", f"{device.type} (device=auto): {device_name(device)}, {free_memory(device) / 1e9:.1f} GB free"
    if device.type == "cpu":
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield "cuda", f"none found; {built}"
    native = native_bf16(device)
    yield "bf16", "native: precision=auto is bf16" if native else "not native: precision=auto is fp32, bf16 is refused"
    asked = os.environ.get("OMP_NUM_THREADS")
    said = f"OMP_NUM_THREADS={asked}" if asked else "OMP_NUM_THREADS is not set"
    yield "threads", f"{torch.get_num_threads()} of torch, {os.cpu_count()} cores; {said}"


def _extras() -> Iterator[tuple[str, str]]:
    """Each optional part, with the versions of its packages or those that are missing."""
    try:
        required = importlib.metadata.requires("tdcompress") or []
    except importlib.metadata.PackageNotFoundError:
        yield "extras", "unknown: tdcompress is not installed here as a package"
        return
    parts: dict[str, list[str]] = {}
    for package, name in re.findall(r"^([\w.-]+).*; extra == ['\"](\w+)['\"]", "\n".join(required), re.MULTILINE):
        if name != "dev":
            parts.setdefault(name, []).append(package)
    for extra, packages in sorted(parts.items()):
        versions = {package: _installed(package) for package in packages}
        missing = [package for package, there in versions.items() if there is None]
        there = ", ".join(f"{package} {number}" for package, number in versions.items() if number is not None)
        lacks = f"{', '.join(missing)} missing: pip install 'tdcompress[{extra}]'" if missing else ""
        yield f"extra {extra}", "; ".join(filter(None, (there, lacks)))


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _data(root: Path) -> Iterator[tuple[str, str]]:
    for name, dataset in DATASETS.items():
        if dataset.folder is not None:
            place = root / dataset.folder
            there = place.is_dir() and any(place.iterdir())
            yield f"data {name}", f"in {place}" if there else f"not in {place}: downloaded when it is asked for"


def _places(results_dir: Path) -> Iterator[tuple[str, str]]:
    yield "slurm", "srun is here" if shutil.which("srun") else "no srun here: launcher=slurm needs a login node"
    count = len(list((results_dir / "runs").glob("*/*/*/seed*/summary.json")))
    yield "runs", f"{count} in {results_dir / 'runs'}"
