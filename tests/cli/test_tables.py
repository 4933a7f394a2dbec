"""Tables of runs as a terminal shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdcompress.cli.shared.tables import print_outcome
from tdcompress.results.record import Summary


def test_what_a_summary_does_not_know_is_a_dash(capsys: pytest.CaptureFixture[str]):
    whole = Summary(
        "finished", method="tt", rank="8", parameters=1234, compression_ratio=2.5, macs=5678, test_accuracy=0.5,
        best_test_accuracy=0.625, train_seconds_per_epoch=1.5,
    )  # fmt: skip
    print_outcome({Path("a/seed0"): whole, Path("b/seed1"): Summary("interrupted", method="tt")})
    first, second, *directories = capsys.readouterr().out.split("\n")[2:6]
    assert first.split() == ["tt", "8", "1,234", "2.50x", "5,678", "50.00%", "62.50%", "1.50", "finished"]
    assert second.split() == ["tt", *["-"] * 7, "interrupted"]
    assert directories == ["a/seed0", "b/seed1"]
