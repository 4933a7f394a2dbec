"""The verbs and the configurations that there are, as the command line names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdcompress import cli
from tdcompress.config.conf import conf_dir
from tdcompress.data.sources import DATASETS
from tdcompress.models.build import ARCHS
from tdcompress.tensor.formats import FORMATS
from tdcompress.train.launch.launchers import LAUNCHERS

pytestmark = pytest.mark.usefixtures("one_thread")

CONF = conf_dir()
GROUPS = {"method": FORMATS, "arch": ARCHS, "dataset": DATASETS, "launcher": LAUNCHERS}
CHOICES = [f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "experiment"]


def test_a_verb_is_a_file():
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert {*cli.VERBS, "__init__"} == files


@pytest.mark.parametrize("group", GROUPS)
def test_every_registered_name_has_its_yaml(group):
    assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(GROUPS[group])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_yaml_composes(tdc, tmp_path, choice):
    code, out, err = tdc(f"train {choice} --cfg job")
    assert (code, err) == (0, "")
    group, name = choice.split("=")
    assert group not in GROUPS or f": {name}\n" in out
    assert not any(tmp_path.iterdir())
