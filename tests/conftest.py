"""Fixtures for every test file."""

import gc
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator

import pytest
import torch

from tdcompress import cli

if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has its parent's
    _CACHE = tempfile.TemporaryDirectory(prefix="tdcompress-cache-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name  # measured rates are kept there, also by the processes that tests start


def pytest_collection_finish() -> None:
    """Whatever is there before the tests stays: a collection of garbage, of which each cut makes one, looks past it."""
    gc.collect()
    gc.freeze()


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
