"""A format that only the tests know, of three cores that share modes, passes what every format must."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import pytest
from blocks import registered  # noqa: F401
from layers import test_conformance as conformance
from torch import nn


def names(test: Callable[..., None]) -> Mapping[str, object]:
    """Of what a test takes."""
    return inspect.signature(test).parameters


pytestmark = pytest.mark.usefixtures("one_thread")

TESTS = [test for name, test in vars(conformance).items() if name.startswith("test_") and "case" in names(test)]


@pytest.mark.parametrize("cls", [nn.Linear, nn.Conv2d])
@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__)
def test_it_conforms(test, cls, registered):  # noqa: F811
    test((cls, registered, "split"))
