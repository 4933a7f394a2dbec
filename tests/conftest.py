"""Fixtures for every test file."""

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch

_CACHE = tempfile.TemporaryDirectory(prefix="tdcompress-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name  # measured rates are kept there, also by the processes that tests start


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: faster for thousands of tiny tensors, above all while something else is running."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
