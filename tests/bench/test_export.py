"""The benchmark of exported files."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def test_export_writes_a_row_for_each_batch_in_layouts_that_a_format_has(bench, timed):
    timed("export", cores=0.25, folded=0.5)
    settings = "method=tt,btt arch=lenet dataset=mnist width=0.25 rank=2 layout=paired format=torch"
    code, _, _, rows = bench(f"export {settings} repeats=1 batch_size=1,3 threads=1")
    assert code == 0
    found = rows["export"]
    layouts = [(row["layout"], row["batch_size"]) for row in found]
    assert layouts == [("paired", "1"), ("paired", "3"), ("split", "1"), ("split", "3")]
    for row in found:
        sizes = [int(row[column]) for column in ("bytes", "folded_bytes", "dense_bytes")]
        assert 4 * int(row["parameters"]) < sizes[0] < sizes[2] / 2 and sizes[1] <= 1.1 * sizes[2] > 4 * 75_000
        assert float(row["smaller"]) == pytest.approx(sizes[2] / sizes[0], rel=1e-4)
        assert int(row["macs"]) <= int(row["dense_macs"])
        assert [float(row[column]) for column in ("ms", "dense_ms", "folded_ms")] == [250, 1000, 500]
        assert [float(row[column]) for column in ("speedup", "folded_speedup")] == [4, 2]
