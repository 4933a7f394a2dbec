"""Fixtures for the tests of the benchmarks."""

from __future__ import annotations

import csv

import pytest

from tdcompress import cli


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """Run ``tdc bench`` in an empty folder: exit code, standard output, standard error, rows of the CSV by name."""
    monkeypatch.chdir(tmp_path)

    def run(line: str):
        code = 0
        try:
            cli.main(["bench", *line.split()])
        except SystemExit as end:
            code = end.code
        rows = {path.stem: list(csv.DictReader(path.open())) for path in tmp_path.glob("results/bench/*.csv")}
        return code, *capfd.readouterr(), rows

    return run
