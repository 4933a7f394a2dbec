"""Fixtures for every test file."""

import gc
import json
import os
import random
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from tdcompress import cli
from tdcompress.device import rates
from tdcompress.tensor.contraction.cost import Rates


def _keep_rates(file: Path) -> None:
    """Tests plan for one CPU, whichever theirs is and whatever else it does: by none of its threads is it measured."""
    threads, cpu, found = torch.get_num_threads(), torch.device("cpu"), {}
    for number in range(1, max(threads, os.cpu_count() or 1) + 1):
        torch.set_num_threads(number)
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            found[rates._key(cpu, dtype)] = asdict(Rates(lanes=64 // dtype.itemsize, width=dtype.itemsize))
    torch.set_num_threads(threads)
    file.parent.mkdir()
    file.write_text(json.dumps(found))


if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has its parent's
    _CACHE = tempfile.TemporaryDirectory(prefix="tdcompress-cache-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name  # of what tests and the processes that they start keep
    _keep_rates(Path(_CACHE.name, "tdcompress", "rates.json"))


def pytest_collection_finish() -> None:
    """Whatever is there before the tests stays: a collection of garbage, of which each cut makes one, looks past it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws without a seed of its own is the same in any order of the tests."""
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)  # torch.manual_seed turns to every device: a hundred times as long


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: faster for thousands of tiny tensors, above all while something else is running."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tdc(tmp_path, monkeypatch, capfd):
    """Run a verb in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdc"])

    def run(line: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(shlex.split(line))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, *capfd.readouterr()

    return run
