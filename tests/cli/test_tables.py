"""Tables of runs as a terminal shows them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from runs import BASE, make, write_run

from tdcompress.cli.shared.tables import print_outcome, print_runs
from tdcompress.results.record import Summary
from tdcompress.results.rows import read_runs
from tdcompress.results.tables import read_results


def test_what_a_summary_does_not_know_is_a_dash(capsys: pytest.CaptureFixture[str]):
    whole = Summary(
        "finished", method="tt", rank="8", parameters=1234, compression_ratio=2.5, macs=5678, test_accuracy=0.5,
        best_test_accuracy=0.625, train_seconds_per_epoch=1.5,
    )  # fmt: skip
    print_outcome({Path("a/seed0"): whole}, {})
    first, directory = capsys.readouterr().out.split("\n")[2:4]
    assert first.split() == ["tt", "8", "1,234", "2.50x", "5,678", "50.00%", "62.50%", "1.50", "finished"]
    assert directory == "a/seed0"
    print_outcome({Path("b/seed1"): Summary("interrupted", method="tt")}, {})
    assert capsys.readouterr().out.split("\n")[2].split() == ["tt", *["-"] * 7, "interrupted"]


def test_runs_of_a_sweep_are_told_apart(capsys: pytest.CaptureFixture[str]):
    paths = [Path("a/seed0"), Path("b/seed1")]
    names = dict(zip(paths, ["lenet tt 8 seed 0 method.in_modes=[8,8]", "lenet tt 8 seed 1"], strict=True))
    print_outcome(dict.fromkeys(paths, Summary("finished", method="tt", rank="8", parameters=1234)), names)
    first, second, *directories = capsys.readouterr().out.split("\n")[2:6]
    assert first.startswith("lenet tt 8 seed 0 method.in_modes=[8,8]  ") and first.split()[6] == "1,234"
    assert second.split()[:6] == ["lenet", "tt", "8", "seed", "1", "1,234"]
    assert directories == ["a/seed0", "b/seed1"]


def test_runs_say_where_their_other_choices_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make(tmp_path), make(tmp_path, seed=1)
    print_runs(read_runs(tmp_path))
    assert "setting" not in capsys.readouterr().out
    part = replace(BASE.dataset, limit=500)
    make(tmp_path, dataset=part), make(tmp_path, dataset=part, arch=replace(BASE.arch, width=0.5))
    write_run(tmp_path / "runs/digits/lenet/tt-8/seed0")  # whose own choices nobody there has otherwise
    print_runs(read_runs(tmp_path))
    rows = capsys.readouterr().out.splitlines()[1:]
    ends = [" ".join(row.rsplit("seed", 1)[-1].split()) for row in rows]
    assert sorted(ends) == ["0", "0", "0 arch.width=0.5 dataset.limit=500", "0 dataset.limit=500", "1"]


def test_what_is_left_out_is_said_in_a_line(tdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # to be set back afterwards
    make(tmp_path / "results", "dense")
    (make(tmp_path / "results", "tt").directory / "summary.json").write_text("{")
    with pytest.warns(UserWarning, match="is left out") as caught:
        assert tdc("report")[0] == 0
    (line,) = (warnings.formatwarning(one.message, one.category, one.filename, one.lineno) for one in caught)
    assert line == "tdc: results/runs/mnist/lenet/tt-10x/seed0 is left out: its summary.json is missing or damaged\n"
    assert warnings.formatwarning("other", UserWarning, "/other.py", 3).startswith("/other.py:3: UserWarning: other")


def test_figures_of_before_are_named(tdc, tmp_path: Path):
    for method in ("dense", "tt"):
        make(tmp_path / "results", method)
    assert "not drawn now" not in tdc("plot")[1]
    assert "not drawn now" not in tdc("plot format=png")[1]  # the others' names are drawn
    for name in ("of-before.png", "of-before.svg", "another.pdf", "notes.txt"):
        (tmp_path / "results/figures" / name).write_text("")
    told = "not drawn now, and perhaps of other runs, of the figures there: another, of-before"
    assert tdc("plot")[1].splitlines()[-1] == told
    assert "not drawn now" not in tdc("plot method=tt,dense")[1] and "not drawn now" not in tdc("plot x=macs")[1]


def test_what_is_made_of_runs_goes_elsewhere_if_asked_to(tdc, tmp_path: Path):
    for method in ("dense", "tt"):
        make(tmp_path / "shared", method)
    before = sorted(tmp_path.joinpath("shared").rglob("*"))
    code, out, _ = tdc("plot results_dir=shared out=mine/figures format=png")
    assert code == 0 and all(line.startswith("mine/figures/") for line in out.split())
    assert (
        tdc("report results_dir=shared out=mine")[0] == tdc("report results_dir=shared out=mine format=latex")[0] == 0
    )
    made = {path.name for path in tmp_path.joinpath("mine").iterdir()}
    assert made == {"figures", "report.html", "report.md", "summary.csv", "metrics.csv", "tables.tex"}
    assert sorted(tmp_path.joinpath("shared").rglob("*")) == before
    assert read_results(tmp_path / "mine")[0]["method"].tolist() == ["dense", "tt"]
