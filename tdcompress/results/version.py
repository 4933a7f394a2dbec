"""Which code this is: the version, and in a checkout of the repository the commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .. import __version__


def version(package: Path = Path(__file__).parents[1]) -> str:
    """``0.1.0``; in a checkout ``0.1.0+g71a911e``, with ``.dirty`` after it if the package or conf/ was changed."""
    # Installed, the package may lie inside of another project's repository, which does not track it.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return __version__
    commit = _git(package, "describe", "--always", "--exclude=*", "--abbrev=7")
    if commit is None:
        return __version__
    # Pages that are drawn anew, or notes beside the code, make no other program of it.
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".", ":/conf")
    return f"{__version__}+g{commit}{'.dirty' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says there; None without git, outside of a repository, or where it refuses."""
    try:
        said = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None
