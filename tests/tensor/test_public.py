"""``tdcompress.tensor`` as a library: its example runs, its names are there, and torch is all that it needs."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import tdcompress
from tdcompress import tensor
from tdcompress.tensor.formats import Format

ROOT = Path(__file__).resolve().parents[2]


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_example_runs():
    found = doctest.testmod(tensor)
    assert found.attempted >= 8 and found.failed == 0


@pytest.mark.parametrize("name", tensor.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(tensor, name)
    assert value.__doc__ and not isinstance(value, type(tensor))


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="nothing"):
        _ = tensor.nothing


def test_formats_are_read_without_torch():
    names = "FORMATS, Graph, Layout, register"
    run(f"import sys; from tdcompress.tensor import {names}; assert FORMATS and 'torch' not in sys.modules")


def test_torch_is_all_that_it_needs():
    others = "('omegaconf', 'hydra', 'pandas', 'torchvision', 'matplotlib', 'rich', 'sklearn', 'scipy', 'jinja2')"
    block = "import sys; sys.modules |= dict.fromkeys" + f"({others}); "
    run(block + "from tdcompress import tensor; [getattr(tensor, name) for name in tensor.__all__]")


def test_a_format_is_registered_from_the_top_and_no_name_twice():
    assert tdcompress.register is tensor.register
    before = dict(tensor.FORMATS)
    with pytest.raises(tensor.ConfigError, match=r"a format 'cp' already, from tdcompress\.tensor\.formats\.cp"):
        tdcompress.register("cp")(lambda layout: [])
    assert before == tensor.FORMATS


@pytest.mark.parametrize(
    ("core", "bond", "said"),
    [
        ("keys", "r", "no core can be called 'keys'"),
        ("training", "r", "no core can be called 'training'"),
        ("a.b", "r", r"no core can be called 'a\.b'"),
        ("", "r", "no core can be called ''"),
        ("first", "b", "no bond can be called 'b'"),
        ("first", "x", "no bond can be called 'x'"),
        ("first", "kw", "no bond can be called 'kw'"),
        ("first", "r", None),
    ],
)
def test_names_that_the_contraction_has_are_refused(core, bond, said):
    def topology(layout):
        return [tensor.Core(core, ("o", bond)), tensor.Core("last", (bond, "i"))]

    one = Format("own", topology, layouts=("channels",))
    if said is None:
        assert tensor.graph_of((6, 4), one).bonds == (bond,)
        return
    with pytest.raises(tensor.ConfigError, match=f"format own: {said}"):
        tensor.graph_of((6, 4), one)
