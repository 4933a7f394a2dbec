"""Folders of runs that are deleted and moved: only what is asked for, never through a link, never under a process."""

from __future__ import annotations

import errno
import os

import pytest
from runs import write_run

from tdcompress.device.files import RunError
from tdcompress.results.folders import bytes_of, delete, move
from tdcompress.results.run import LOCK, Run


def files(folder):
    """Every file and link below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file())


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "results/runs/mnist/lenet/tt-8/seed0"
    write_run(directory)
    return directory


def test_a_run_goes_and_the_folders_that_it_leaves_empty(run, tmp_path):
    results = tmp_path / "results"
    write_run(results / "runs/mnist/lenet/cp-8/seed0")
    (run / ".hydra").mkdir()
    (run / ".hydra/config.yaml").write_text("x")
    delete(run, results)
    assert files(results) == [f"runs/mnist/lenet/cp-8/seed0/{name}" for name in ("metrics.csv", "summary.json")]
    assert not run.parent.exists()
    delete(results / "runs/mnist/lenet/cp-8/seed0", results)
    assert results.exists() and not any(results.iterdir())


def test_what_a_link_in_a_run_leads_to_stays(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("x")
    (run / "data").symlink_to(tmp_path / "data")
    (run / "file").symlink_to(tmp_path / "data/precious")
    delete(run, tmp_path / "results")
    assert not run.exists() and (tmp_path / "data/precious").read_text() == "x"


@pytest.mark.parametrize("depth", ["runs", "runs/mnist/lenet", "runs/mnist/lenet/tt-8/seed0"])
@pytest.mark.parametrize("verb", ["delete", "move"])
def test_a_run_behind_a_link_is_left(run, tmp_path, depth, verb):
    results = tmp_path / "results"
    (results / depth).rename(tmp_path / "elsewhere")
    (results / depth).symlink_to(tmp_path / "elsewhere")
    before = files(tmp_path)
    with pytest.raises(RunError, match=rf"^cannot {verb} .*{depth} is a link"):
        delete(run, results) if verb == "delete" else move(run, results, tmp_path / "other")
    assert files(tmp_path) == before


@pytest.mark.parametrize("verb", ["delete", "move"])
def test_a_run_that_a_process_holds_is_left(run, tmp_path, verb):
    with Run(run).locked(), pytest.raises(RunError, match="another process works on"):
        delete(run, tmp_path / "results") if verb == "delete" else move(run, tmp_path / "results", tmp_path / "other")
    assert files(run) == [LOCK, "metrics.csv", "summary.json"] and not (tmp_path / "other").exists()


def other_device(monkeypatch):
    """Renames of folders of runs fail, as they do between file systems."""
    whole = os.rename

    def rename(source, target):
        if not str(target).startswith(str(os.path.dirname(source))) and ".part" not in str(source):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        whole(source, target)

    monkeypatch.setattr(os, "rename", rename)


@pytest.mark.parametrize("far", [False, True])
def test_a_run_is_moved_whole(run, tmp_path, monkeypatch, far):
    (run / "link").symlink_to("nowhere")
    before, size = files(run), bytes_of(run)
    assert size == sum(os.lstat(run / name).st_size for name in before) > 500
    if far:
        other_device(monkeypatch)
    target = move(run, tmp_path / "results", tmp_path / "other")
    assert target == tmp_path / "other/runs/mnist/lenet/tt-8/seed0"
    assert set(files(target)) - {LOCK} == set(before) and (target / "link").is_symlink()
    assert not any((tmp_path / "results").iterdir()) and Run(target).summary()
    assert [path.name for path in target.parent.iterdir()] == ["seed0"]


def test_a_move_overwrites_nothing(run, tmp_path):
    write_run(tmp_path / "other/runs/mnist/lenet/tt-8/seed0", epochs=1)
    before = files(tmp_path)
    with pytest.raises(RunError, match="is there already"):
        move(run, tmp_path / "results", tmp_path / "other")
    assert files(tmp_path) == before
