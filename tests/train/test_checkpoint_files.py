"""Checkpoints on disk: damaged, dangerous, or too large for it."""

import os
import pickle
import resource

import pytest
import torch

from tdcompress.device.files import RunError
from tdcompress.results.run import Run
from tdcompress.train import checkpoint


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    for step in range(3):
        checkpoint.save(tmp_path, {"step": step, "weights": torch.full((1000,), float(step))})
    newest = tmp_path / checkpoint.NAME
    content = bytearray(newest.read_bytes())
    if damage == "missing":
        newest.unlink()
    else:
        content[len(content) // 2] ^= 1
        newest.write_bytes({"truncated": content[:500], "flipped": content, "empty": b""}[damage])
    lines = []
    assert checkpoint.load(tmp_path, lines.append)["step"] == 1
    assert "going on from the checkpoint before it" in lines[-1]
    checkpoint.save(tmp_path, {"step": 3})
    newest.write_bytes(b"")
    assert checkpoint.load(tmp_path, lines.append)["step"] == 1  # the damaged one was not kept in its place
    for path in tmp_path.glob("checkpoint*"):
        path.write_bytes(b"garbage")
    assert checkpoint.load(tmp_path, lines.append) is None


@pytest.mark.parametrize("kind", ["archive", "legacy", "pickle"])
def test_a_checkpoint_runs_no_code(tmp_path, kind):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    path, lines = tmp_path / checkpoint.NAME, []
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"step": Evil()}))
    else:
        torch.save({"step": Evil()}, path, _use_new_zipfile_serialization=kind == "archive")
    if kind == "archive":
        with pytest.raises(RunError, match="not loaded"):
            checkpoint.load(tmp_path, print)
    else:  # no file of ours was ever like that
        assert checkpoint.load(tmp_path, lines.append) is None
        assert len(lines) == 1 and "damaged" in lines[0]
    assert not (tmp_path / "evil").exists()


def test_a_full_disk_loses_nothing(tmp_path):
    checkpoint.save(tmp_path, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .*checkpoint\.pt"):
            checkpoint.save(tmp_path, {"weights": torch.zeros(100_000)})
        with pytest.raises(RunError, match="File too large"):
            Run(tmp_path).write_text("summary.json", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]
    assert checkpoint.load(tmp_path, print)["step"] == 1
