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
    page, conf = tmp_path / "page.md", tmp_path / "conf" / "train.yaml"
    conf.parent.mkdir()
    for file in (page, conf):
        file.write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", "package", "page.md", "conf")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "-a", "v7", "-m", "seven")
    commit = git(tmp_path, "rev-parse", "HEAD")[:7]
    assert version(package) == f"{__version__}+g{commit}"
    page.write_text("drawn anew")
    assert version(package) == f"{__version__}+g{commit}"
    for file in (conf, package / "__init__.py"):
        file.write_text("changed: true")
        assert version(package) == f"{__version__}+g{commit}.dirty"
        file.write_text("")
    (package / "beside.py").write_text("")  # not tracked
    assert version(package) == f"{__version__}+g{commit}"
    assert version(installed) == __version__
    assert version(tmp_path / "nowhere") == __version__
