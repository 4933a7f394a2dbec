"""The CSV of a benchmark."""

from __future__ import annotations

from tdcompress.bench.table import write


def test_a_csv_has_every_column_of_every_row(tmp_path):
    path = write([{"a": 1, "b": 0.123456789}, {"a": None, "c": "x, y"}], tmp_path, "some")
    assert path == tmp_path / "bench" / "some.csv"
    assert path.read_text().splitlines() == ["a,b,c", "1,0.123457,", ',,"x, y"']
