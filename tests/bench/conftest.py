"""Fixtures for the tests of the benchmarks."""

from __future__ import annotations

import csv
import importlib

import pytest

from tdcompress import cli
from tdcompress.device.clock import Pairs


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


@pytest.fixture
def timed(monkeypatch):
    """Let the first call of each comparison take a second, and its rivals, by their names, as many as are said."""

    def say(benchmark: str, **seconds: float) -> None:
        def compare(ours, rivals, repeats):
            for call in (ours, *rivals.values()):
                call()
            return {name: Pairs([1.0] * repeats, [seconds[name]] * repeats) for name in rivals}

        monkeypatch.setattr(importlib.import_module(f"tdcompress.bench.{benchmark}"), "compare", compare)

    return say
