"""Which code a result came from."""

import subprocess
from pathlib import Path

from tdcompress import __version__
from tdcompress.results.version import version


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_names_its_commit(tmp_path: Path):
    package, installed = tmp_path / "package", tmp_path / ".venv" / "package"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    assert version(package) == __version__
    git(tmp_path, "init")
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "-a", "v7", "-m", "seven")
    commit = git(tmp_path, "rev-parse", "HEAD")[:7]
    assert version(package) == f"{__version__}+g{commit}"
    (package / "__init__.py").write_text("changed = True")
    assert version(package) == f"{__version__}+g{commit}.dirty"
    assert version(installed) == __version__
    assert version(tmp_path / "nowhere") == __version__
