"""Locks: one owner at a time, and readers who look without being taken for one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tdcompress.device.lock import is_owned, owned

OWNING = """if True:
    import sys
    from pathlib import Path
    from tdcompress.device.lock import owned
    with owned(Path(sys.argv[1])) as mine:
        print(mine, flush=True)
        sys.stdin.read()
"""


def process(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_one_owner_at_a_time(tmp_path: Path):
    path = tmp_path / "lock"
    assert is_owned(path) is False and not path.exists()  # who looks leaves nothing behind
    owner = process(OWNING, path)
    assert owner.stdout is not None and owner.stdout.readline() == "True\n"
    assert is_owned(path) is True
    with owned(path) as mine:
        assert not mine
    owner.communicate()
    assert is_owned(path) is False and path.exists()
    with owned(path) as mine:
        assert mine and is_owned(path) is True


def test_who_looks_at_the_same_instant_is_no_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "lock"
    with FileLock(path) as reader:
        monkeypatch.setattr(time, "sleep", lambda seconds: seconds and reader.release())
        assert is_owned(path) is False


def test_who_may_not_write_cannot_tell(tmp_path: Path):
    path = tmp_path / "lock"
    path.touch()
    path.chmod(0o444)
    root = os.geteuid() == 0
    if root:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        found = is_owned(path)
    finally:
        if root:
            os.seteuid(0)
    assert found is None


def test_a_system_without_locks_is_an_error_and_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Function not implemented"), owned(tmp_path / "lock"):
        pass
