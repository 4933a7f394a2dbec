"""The yaml files of conf/: which groups there are, what each one offers, and what a file says of itself."""

from __future__ import annotations

import re
from pathlib import Path


def conf_dir() -> Path:
    """The folder of the yaml files: beside the package in a source tree, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def groups(own: Path | None = None) -> list[str]:
    """The groups of conf/ and those of a user's ``own`` folder."""
    return sorted({path.name for folder in _folders(own) for path in folder.iterdir() if path.is_dir()})


def choices(group: str, own: Path | None = None) -> dict[str, str]:
    """What ``group`` offers, here and in a user's ``own`` folder, and what each file says of itself (see ``said``).

    By name; one in a folder is called ``quick/trl`` and comes last.
    """
    found = {
        path.relative_to(folder / group).with_suffix("").as_posix(): said(path)
        for folder in _folders(own)
        for path in (folder / group).rglob("*.yaml")
    }
    return {name: found[name] for name in sorted(found, key=lambda name: ("/" in name, name))}


def said(path: Path) -> str:
    """The first sentence of a yaml file's comments, a package's name and a command apart; empty where there is none."""
    comments = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(line for line in comments if not line.startswith(("@", "tdc ")))
    return re.split(r"\.(?: (?=[A-Z])|$)", text)[0]


def _folders(own: Path | None) -> list[Path]:
    return [conf_dir(), *([own] if own is not None and own.is_dir() else [])]
