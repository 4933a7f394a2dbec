"""The CSV of a benchmark."""

from __future__ import annotations

from tdcompress.bench.table import spread, write
from tdcompress.results.terminal import show


def test_a_csv_has_every_column_of_every_row(tmp_path):
    path = write([{"a": 1, "b": 0.123456789}, {"a": None, "c": "x, y"}], tmp_path, "some")
    assert path == tmp_path / "bench" / "some.csv"
    assert path.read_text().splitlines() == ["a,b,c", "1,0.123457,", ',,"x, y"']


def test_of_rounds_the_median_and_the_quartiles():
    assert spread("ratio", [0.5, 2, 0.1]) == {"ratio": 0.5, "ratio_low": 0.3, "ratio_high": 1.25}
    assert spread("speedup", [4.0]) == {"speedup": 4, "speedup_low": None, "speedup_high": None}
    assert spread("hand_ratio", []) == {"hand_ratio": None, "hand_ratio_low": None, "hand_ratio_high": None}


def test_on_the_screen_quartiles_stand_behind_their_median(capsys):
    show([{"method": "a", **spread("speedup", [0.5, 2, 0.1])}, {"method": "b", "speedup": 3.0}], ("speedup",), "times")
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[2:]] == ["0.50 (0.30 to 1.25)", "3.00"]
