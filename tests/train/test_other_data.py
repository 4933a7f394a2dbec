"""Runs whose data change: between two sessions, and after the end."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image
from training import config_in, run_of, stopped

from tdcompress.config.schema import DatasetConfig
from tdcompress.device.files import RunError
from tdcompress.train import checkpoint
from tdcompress.train.run import train


def test_a_run_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    config = config_in(tmp_path)
    run = run_of(config)
    stopped(config, monkeypatch, 2)
    state = checkpoint.load(run.directory, print)
    now = state["images"]
    assert run.summary().images == now and now["train"] > 0 and now["classes"] == 10
    checkpoint.save(run.directory, state | {"images": now | {"train": 7, "classes": 3}})
    said = f"7 training images then, {now['train']} now, 3 classes then, 10 now"
    with pytest.raises(RunError, match=f"began with other data .{said}.; delete it or choose another results_dir"):
        train(config, run, print)
    checkpoint.save(run.directory, {key: value for key, value in state.items() if key != "images"})  # of before
    assert train(config, run, print).status == "finished"


@pytest.mark.parametrize("key", ["mean", "std"])
def test_nor_with_as_many_other_images(tmp_path, monkeypatch, key):
    config = config_in(tmp_path)
    run = run_of(config)
    stopped(config, monkeypatch, 2)
    now = run.summary().normalisation
    (value,) = now[key]
    run.write_summary(replace(run.summary(), normalisation={**now, key: [value + 1]}))
    with pytest.raises(RunError, match=f"other data .{key} of the training pixels {value + 1:.4g} then, {value:.4g} "):
        train(config, run, print)
    run.write_summary(replace(run.summary(), normalisation={**now, key: [value] * 3}))  # of colour images
    with pytest.raises(RunError, match=f"{key} of the training pixels {value:.4g}/{value:.4g}/{value:.4g} then, "):
        train(config, run, print)
    run.write_summary(replace(run.summary(), normalisation={**now, key: [value + 0.1]}))  # by another decoder
    assert train(config, run, print).status == "finished"


@pytest.fixture
def folder(tmp_path):
    """Six training and two test images of each of two classes."""
    rng = numpy.random.default_rng(0)
    for name in ("train/a", "train/b", "test/a", "test/b"):
        place = tmp_path / "photographs" / name
        place.mkdir(parents=True)
        for number in range(6 if "train" in name else 2):
            Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=numpy.uint8)).save(place / f"{number}.png")
    return DatasetConfig("image_folder", root=str(tmp_path / "photographs"), image_size=16, validation=0.25)


def test_a_run_that_has_ended_tells_of_other_data_in_its_folder(tmp_path, folder):
    config = config_in(tmp_path, dataset=folder, epochs=1, batch_size=4)
    finished, root = train(config, run_of(config), print), Path(folder.root)
    lines = []
    assert train(config, run_of(config), lines.append) == finished and "not run again" in lines[-1]
    for number in range(6, 12):
        shutil.copy(root / "train/a/0.png", root / f"train/b/{number}.png")
    said = "8 training images then, 14 now"  # of 18, four of which are held out
    with pytest.raises(RunError, match=f"began with other data .{said}.; delete it or choose another results_dir"):
        train(config, run_of(config), print)
    shutil.rmtree(root)  # whoever has the results alone
    assert train(config, run_of(config), print) == finished
