"""Fixtures for the tests of the command line."""

from __future__ import annotations

import shlex
import sys

import pytest

from tdcompress import cli


@pytest.fixture
def tdc(tmp_path, monkeypatch, capfd):
    """Run a verb in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdc"])

    def run(line: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(shlex.split(line))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, *capfd.readouterr()

    return run
