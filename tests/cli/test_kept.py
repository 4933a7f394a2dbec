"""``tdc runs delete`` and ``tdc runs move``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from runs import make

from tdcompress.results.drawing.page.report import write_report
from tdcompress.results.folders import delete
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run


@pytest.fixture
def results(tmp_path):
    for method in ("dense", "tt", "cp"):
        make(tmp_path / "results", method)
    make(tmp_path / "results", "tt", seed=1, status="diverged")
    return tmp_path / "results"


def names(folder):
    return [f"{one.parent.name}/{one.name}" for one in map(Path, read_runs(folder).directory)]


def test_deleting_asks_and_without_a_terminal_needs_a_yes(tdc, results, monkeypatch):
    code, out, err = tdc("runs delete method=tt")
    assert code == 2 and out.count("seed") == 2
    assert err.startswith("tdc: delete 2 runs, 0.0 MB? there is no terminal to ask at: say yes=true")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer in ("n", ""):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert tdc("runs delete method=tt")[1].endswith("nothing deleted\n")
    assert len(names(results)) == 4
    monkeypatch.setattr("builtins.input", lambda question: "Yes")
    assert tdc("runs delete method=tt status=diverged")[1].endswith("1 of 1 folders deleted\n")
    assert names(results) == ["cp-10x/seed0", "dense/seed0", "tt-10x/seed0"]


def test_a_run_at_work_is_left_and_no_run_is_no_mistake(tdc, results):
    with Run(results / "runs/mnist/lenet/tt-10x/seed0").locked():
        (results / "runs/mnist/lenet/tt-10x/seed0/summary.json").unlink()
        moved = tdc("runs move method=tt seed=0 to=other")
        code, out, _ = tdc("runs delete method=tt yes=true")
    assert moved == (0, "results/runs/mnist/lenet/tt-10x/seed0 is left: a process works on it\n", "")
    assert code == 0 and "seed0 is left: a process works on it" in out and out.endswith("1 of 1 folders deleted\n")
    assert names(results) == ["cp-10x/seed0", "dense/seed0", "tt-10x/seed0"]
    assert tdc("runs delete method=ht yes=true") == (0, "no runs in results/runs like that\n", "")


def test_tables_that_have_a_deleted_run_are_named(tdc, results):
    write_report(results)
    assert "results/summary.csv has 2 of them" in tdc("runs delete method=tt yes=true")[1]
    told = tdc("runs")[1].splitlines()  # as figures do
    assert [line.split()[0] for line in told] == ["method", "cp", "dense", "tt", "tt", "2"]
    assert told[-1] == "2 of 4 are known from results/summary.csv alone"


def test_what_fails_is_told_and_the_rest_is_done(tdc, results, tmp_path):
    write_report(results)
    (results / "runs/mnist/lenet/cp-10x").rename(tmp_path / "elsewhere")
    (results / "runs/mnist/lenet/cp-10x").symlink_to(tmp_path / "elsewhere")
    code, out, err = tdc("runs delete method=tt,cp yes=true")
    assert code == 1 and "2 of 3 folders deleted\n" in out and "summary.csv has 2 of them" in out
    assert err.count("\n") == 1 and "is a link" in err


def test_a_move_overwrites_nothing_and_moves_nothing_then(tdc, results):
    assert tdc("runs move method=tt seed=0 to=other")[0] == 0
    make(results, "tt")
    code, _, err = tdc("runs move method=tt to=other")
    assert code == 2 and "there already, nothing is overwritten" in err and names("other") == ["tt-10x/seed0"]
    delete(results / "runs/mnist/lenet/tt-10x/seed0", results)
    assert tdc("runs move method=tt to=other")[0] == 0 and names("other") == ["tt-10x/seed0", "tt-10x/seed1"]


def test_a_move_says_that_tables_have_the_runs_still(tdc, results):
    assert tdc("report")[0] == 0
    code, out, _ = tdc("runs move method=tt to=other")
    assert code == 0 and "summary.csv has 2 of them, so figures and pages still do" in out


def test_two_runs_side_by_side(tdc, results, tmp_path):
    make(results, "tt", lr=0.5, accuracy=0.7)
    first, second = (str(run.relative_to(tmp_path)) for run in sorted(results.glob("runs/*/*/tt*/seed0")))
    code, out, _ = tdc(f"runs diff {first} {second} format=svg")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0 and lines[:2] == [f"A {first}", f"B {second}"]
    assert lines[2:5] == ["keys that differ", "key A B", "lr 0.05 0.5"] and lines[5] == "what became of them"
    assert "test_accuracy 90.00% 70.00%" in lines
    assert lines[-1] == "results/figures/diff-tt-10x-seed-0-tt-10x-seed-0-lr.svg"
    assert (tmp_path / lines[-1]).stat().st_size > 5000
    code, out, _ = tdc(f"runs diff {first} {first} out=here")
    assert code == 0 and "keys that differ: none" in out and "what became of them: none" in out
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == ["here"]
    (tmp_path / second / "metrics.csv").unlink()
    code, out, _ = tdc(f"runs diff {first} {second}")
    assert code == 0 and out.endswith("no figure: one of them has no epoch that was tested\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("delete", "tdc runs delete needs to be told which runs, as in: tdc runs delete status=broken"),
        ("delete mehtod=tt", "unknown key 'mehtod' (did you mean method?)"),
        ("diff results", "tdc runs diff needs the folders of two runs"),
        ("diff results results", "results is no run whose summary.json can be read"),
        ("move method=tt", "tdc runs move needs words that choose runs and a place"),
        ("move method=tt to=results/", "to=results is where these runs are"),
    ],
)
def test_mistakes_are_one_line(tdc, results, words, told):
    code, out, err = tdc(f"runs {words}")
    assert code == 2 and err.startswith(f"tdc: {told}") and err.count("\n") == 1 and not out
