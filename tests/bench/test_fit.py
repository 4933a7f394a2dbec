"""The benchmark of decompositions against tensorly's."""

from __future__ import annotations

import json

import pytest
import torch

from tdcompress.bench import fit
from tdcompress.bench.fit import Fit, falling

pytestmark = pytest.mark.usefixtures("one_thread")


def test_fit_end_to_end(bench, timed, monkeypatch):
    timed("fit", tensorly=4.0)
    monkeypatch.setattr(fit, "alone", lambda module, asked: {"tdcompress": 2.0, "tensorly": 4.0}[asked["whose"]])
    code, out, err, rows = bench("fit weight=12x8x3x3 method=tt rank=2 repeats=1")
    assert (code, err) == (0, "") and "results/bench/fit.csv" in out
    (row,) = rows["fit"]
    assert (row["weight"], row["ranks"], row["layout"]) == ("12x8x3x3", "r1=2 r2=2", "channels")
    assert row["parameters"] == str(8 * 2 + 2 * 9 * 2 + 2 * 12) and row["dense_parameters"] == "864"
    assert 0 < float(row["error"]) < 1 and float(row["error_ratio"]) <= 1.01
    assert float(row["error_ratio"]) == pytest.approx(float(row["error"]) / float(row["tensorly_error"]), rel=1e-4)
    assert [float(row[key]) for key in ("seconds", "tensorly_seconds", "speedup")] == [1, 4, 4]
    assert [row[f"{key}memory_{of}"] for key, of in (("", "mb"), ("tensorly_", "mb"), ("", "ratio"))] == [
        "2",
        "4",
        "0.5",
    ]


@pytest.mark.parametrize(("shape", "rank"), [((12, 8, 3, 2), "2"), ((12, 8, 3, 2), "4"), ((16, 12), "2")])
@pytest.mark.parametrize("layout", ["split", "paired"])
@pytest.mark.parametrize("method", ["cp", "tucker", "tt", "tr"])
def test_ours_is_never_worse_by_more_than_a_hundredth(method: str, layout: str, shape: tuple[int, ...], rank: str):
    ours, theirs = Fit(shape, method, rank, layout).errors()
    assert ours <= 1.01 * theirs + fit.ROUNDING


def test_memory_is_measured_by_a_process_that_is_told_the_fit(monkeypatch, capsys):
    monkeypatch.setattr(fit, "alone", lambda module, asked: fit.main(json.dumps(asked)))
    Fit((64, 64, 3, 3), "tt", "4").memory("tensorly")
    assert 0 <= float(capsys.readouterr().out) < 1000


def test_slices_fall_off_along_every_mode():
    for axis in range(3):
        values = torch.linalg.svdvals(falling((8, 9, 10), 2.0).movedim(axis, 0).flatten(1))
        assert values[-1] < 0.05 * values[0]
    assert torch.linalg.svdvals(falling((8, 9, 10), 0.0).flatten(1)).min() > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("weight=12", "weight=12 is no shape such as 512x512 or 64x32x3x3"),
        ("method=ht", "tensorly has no ht, it has cp, tr, tt, tucker"),
        ("rank=10x", "rank=10x is not of a single weight"),
        ("device=cuda", "unknown device 'cuda', known: cpu"),
        ("precision=bf16", "unknown precision 'bf16', known: fp32"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(bench, words: str, message: str):
    code, _, err, rows = bench(f"fit {words}")
    assert code == 2 and message in err and err.count("\n") == 1 and not rows
