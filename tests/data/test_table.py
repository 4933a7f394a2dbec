"""The table of data sets."""

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tdcompress.config.schema import DatasetConfig
from tdcompress.data.sources import load
from tdcompress.data.table import DATASETS
from tdcompress.tensor.errors import ConfigError


def test_the_table_imports_nothing_that_loads():
    code = (
        "import sys; from tdcompress.data.table import DATASETS;"
        "assert not {'torch', 'torchvision', 'PIL', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_labels_are_not_alike():
    assert len({dataset.label for dataset in DATASETS.values()}) == len(DATASETS)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_loader_is_found(name, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    if name == "digits":  # it needs no file of the user's
        assert len(load(DatasetConfig(name)).train_labels) > 0
    else:
        with pytest.raises(ConfigError, match=str(tmp_path)):
            load(DatasetConfig(name, root=str(tmp_path / "none"), frames=1 if name == "video_folder" else None))
