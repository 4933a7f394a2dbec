"""``tdc best``, on runs made up."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
from runs import make

from tdcompress.config.schema import DatasetConfig


@pytest.fixture
def results(tmp_path):
    for method, parameters, accuracies in (
        ("dense", 10_000, (0.95, 0.97)),
        ("tt", 1000, (0.94, 0.96)),
        ("cp", 90, (0.5,)),
    ):
        for seed, accuracy in enumerate(accuracies):
            make(tmp_path / "results", method, accuracy, parameters=parameters, seed=seed)
    make(tmp_path / "results", "ht", dataset=DatasetConfig("cifar10"))
    return tmp_path / "results"


def test_the_smallest_within_points_of_dense(tdc, results):
    code, out, _ = tdc("best within=1")
    other, title, head, *table = out.splitlines()
    assert code == 0
    assert title.endswith(": the fewest parameters within 1 points of dense")
    assert "test accuracy (seeds)  against dense" in head
    assert [
        re.sub("  +", " | ", line.strip())
        for line in "\n".join(table).replace("results/runs/mnist/lenet", "runs").split("\n")
    ] == [
        "tt 10x | 0.05 | 1,000 | 95.00 ± 1.41 % (2) | -1.00 points, not told apart by the seeds | best | runs/tt-10x",
        "cp 10x | 0.05 | 90 | 50.00 % (1) | -46.00 points, one seed | missed by 45.00 points, one seed | runs/cp-10x",
        "dense | 0.05 | 10,000 | 96.00 ± 1.41 % (2) | runs/dense",
    ]
    assert "no finished run of method=dense to compare with" in other


def test_the_best_under_a_size_of_the_runs_asked_for(tdc, results):
    code, out, _ = tdc("best under=1e3 dataset=mnist method=tt,cp")
    assert (
        code == 0
        and "the most accurate with at most 1,000 parameters" in out
        and "dense" not in out.replace("against dense", "")
    )
    assert out.splitlines()[2].startswith("tt 10x ")
    code, out, _ = tdc("best under=10 dataset=mnist")
    assert (
        code == 0
        and out.splitlines()[2].startswith("cp 10x ")
        and "too large" in out
        and out.endswith("none will do\n")
    )


def test_what_is_larger_than_dense_is_said_to_be(tdc, results):
    make(results, "tt", 0.96, parameters=12_000, rank="2x", lr=0.5)
    make(results, "dense", 0.97, parameters=10_000, lr=0.5)
    code, out, _ = tdc("best within=1 lr=0.5 method=tt")
    assert code == 0 and "dense has fewer parameters than the best" in out
    assert "fewer parameters than the best" not in tdc("best within=1 lr=0.05")[1]


def test_seconds_that_nobody_knows(tdc, tmp_path):
    for run in (make(tmp_path / "results", "dense"), make(tmp_path / "results")):
        run.write_summary(replace(run.summary(), train_seconds_per_epoch=None))
    assert "no training seconds per epoch, final network known\n" in tdc("best by=seconds")[1]
    assert "no bytes known; tdc export run=RUN writes them down\n" in tdc("best by=bytes")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("within=1 under=1", "within=.. asks for the smallest network and under=.. for the best one: give one of them"),
        ("by=weight", "unknown by 'weight', known: parameters, macs, bytes, ms, seconds"),
        ("within=-1", "within=-1 is not a number greater than 0 or 0"),
        ("method=tucker", "no finished runs like that in results/runs that answer this"),
        ("by=bytes", "no finished runs in results/runs that answer this"),
    ],
)
def test_mistakes_are_one_line(tdc, results, words, told):
    code, _, err = tdc(f"best {words}")
    assert (code, err) == (2, f"tdc: {told}\n")


def test_a_run_that_is_there_twice_costs_no_other(tdc, results):
    copied = results / "runs/mnist/lenet/tt-10x/seed0"
    shutil.copytree(copied, copied.with_name("seed0-old"))
    with pytest.warns(UserWarning, match="seed0-old is left out"):
        code, out, _ = tdc("best within=30 method=tt dataset=mnist")
    assert code == 0 and "95.00 ± 1.41 % (2)" in out and "96.00 ± 1.41 % (2)" in out


def test_a_rate_that_was_asked_for_is_not_that_of_dense(tdc, results):
    make(results, "tr", 0.955, parameters=100, lr=0.1)
    code, out, _ = tdc("best within=1 lr=0.1 dataset=mnist")
    assert code == 0 and "tr 10x" in out and "dense" in out.splitlines()[-1]


def test_broken_runs_are_named(tdc, results):
    broken = make(results, "tt", seed=7).directory
    (broken / "summary.json").write_text("{")
    with pytest.warns(UserWarning, match="seed7 is left out: its summary.json is missing or damaged"):
        tdc("best within=1")


def test_files_have_the_accuracy_of_their_weights(tdc, tmp_path):
    for method, size in (("dense", 4000), ("tt", 400)):
        run = make(tmp_path / "results", method, 0.9, dataset=DatasetConfig("mnist", validation=0.1))
        run.add_export({"format": "onnx", "bytes": size})
    best = 0.9 - 2 / 100  # of the second of four epochs, which is chosen by validation
    assert "90.00 % (1)" in tdc("best within=1")[1]
    assert f"{100 * best:.2f} % (1)" in tdc("best by=bytes within=1")[1]
