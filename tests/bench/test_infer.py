"""The benchmark of inference."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def test_infer_writes_a_row_for_each_batch(bench, timed):
    timed("infer", factorised=0.25, folded=0.5)
    code, _, _, rows = bench(
        "infer method=tt,cp arch=lenet dataset=mnist width=0.25 rank=2 repeats=1 batch_size=1,3 threads=1"
    )
    assert code == 0
    found = rows["infer"]
    assert [(row["method"], row["batch_size"]) for row in found] == [
        ("tt", "1"), ("cp", "1"), ("tt", "3"), ("cp", "3"),
    ]  # fmt: skip
    for row in found:
        assert int(row["parameters"]) < 80 + 1_168 + 73_760 + 330  # dense: conv1, conv2, fc1, fc2
        assert [float(row[column]) for column in ("ms", "dense_ms", "folded_ms")] == [250, 1000, 500]
        assert [float(row[column]) for column in ("speedup", "folded_speedup")] == [4, 2]
