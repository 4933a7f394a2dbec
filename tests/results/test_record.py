"""Epochs and summaries: written, read back, and read from files of other versions."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.results.record import (
    METRICS,
    Epoch,
    Summary,
    best_epoch,
    metrics_text,
    read_metrics_text,
    read_summary,
    summary_text,
)

OLD = (  # the columns of version 0.1.0
    "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,train_seconds,test_seconds,images_per_second,"
    "peak_memory_mb,degeneracy"
)
NUMBERS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**50)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.lists(NUMBERS, min_size=12, max_size=12), COUNTS, COUNTS), max_size=4))
def test_metrics_read_back_bit_for_bit(rows):
    epochs = [
        Epoch(number, *values[:10], parameters, macs, *values[10:])
        for number, (values, parameters, macs) in enumerate(rows, 1)
    ]
    text = metrics_text(epochs)
    assert read_metrics_text(text) == epochs
    found = list(csv.DictReader(io.StringIO(text)))
    assert [row["parameters"] for row in found] == [str(parameters) for _, parameters, _ in rows]
    assert [float(row["lr"]) for row in found] == [values[0] for values, _, _ in rows]


def test_columns_are_found_by_name_and_missing_ones_are_nan():
    (old,) = read_metrics_text(f"{OLD}\n3,0.1,2.5,0.2,2.4,0.3,1.5,0.5,100.0,50.0,nan\n")
    assert (old.epoch, old.lr, old.test_accuracy, old.peak_memory_mb) == (3, 0.1, 0.3, 50.0)
    assert math.isnan(old.parameters) and math.isnan(old.macs) and math.isnan(old.degeneracy)
    (later,) = read_metrics_text("colour,macs,epoch,test_accuracy\nred,7,2,0.5\n")
    assert (later.epoch, later.test_accuracy, later.macs) == (2, 0.5, 7)
    assert math.isnan(later.lr)
    assert Epoch.of({"epoch": 2, "lr": 0.5, "colour": "red"}).lr == 0.5


def epoch(number, validation_accuracy=math.nan, validation_loss=0.5, test_accuracy=0.5, macs=7, test_loss=0.1):
    values = {"train_loss": 0.1, "test_loss": test_loss, "test_accuracy": test_accuracy, "parameters": 9, "macs": macs}
    return Epoch(number, **values, validation_loss=validation_loss, validation_accuracy=validation_accuracy)


def test_the_best_epoch_is_chosen_on_validation_images_alone():
    rows = [epoch(1, 0.7), epoch(2, 0.8, test_accuracy=0.1), epoch(3, 0.8), epoch(4, 0.8, 0.6), epoch(5, 0.75)]
    assert best_epoch(rows) is rows[1]  # of equals the first, whatever the test images say
    assert best_epoch([*rows, epoch(6, 0.8, 0.4)]).epoch == 6  # the less loss
    assert best_epoch([*rows, epoch(6, 0.2, macs=5)]).epoch == 6  # no other is as small
    assert best_epoch([*rows, epoch(6, 0.9, math.nan)]) is best_epoch([*rows, epoch(6, 0.9, test_loss=math.inf)])
    assert best_epoch([epoch(1), epoch(2)]) is best_epoch([]) is None
    assert not epoch(6, 0.9, math.nan).finite and epoch(6, validation_loss=math.nan).finite


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "lr,test_loss\n1,2\n",
        "epoch,lr\n1,0.5",
        "epoch,lr\n1\n",
        "epoch,lr\n1,0.5,3\n",
        "epoch,lr\n1,fast\n",
        "epoch,lr\n1.5,1\n",
        "epoch,lr\n\n",
    ],
)
def test_what_is_no_table_of_epochs_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        read_metrics_text(text)


def test_a_summary_reads_back(tmp_path):
    layers = [{"name": "fc1", "shape": [4, 3], "cores": {"core1": [4, 2], "core2": [2, 3]}, "ranks": {"r1": 2}}]
    ranks = [{"epoch": 1, "layers": {"fc1": {"r1": 2}}}]
    summary = Summary(
        "finished", "mnist", "lenet", "tt", "8", 3, 2, 2, "a CPU", 2, "fp32", 1, {"torch": "2.11"}, 10, 100, 10.0,
        30, 300, "5f", None, 0.5, 2, 0.875, 0.75, 1.25, ranks, layers, {"train": 9}, {"mean": [33.3], "std": [78.6]},
        {"lr": 0.1, "method": {"format": "tt"}},
    )  # fmt: skip
    (tmp_path / "summary.json").write_text(summary_text(summary))
    assert read_summary(tmp_path) == summary
    values = json.loads((tmp_path / "summary.json").read_text())
    assert values["layers"] == layers and values["best_test_accuracy"] == 0.75 and values["config"]["lr"] == 0.1


def test_a_summary_of_another_version():
    older, later = Summary.of({"status": "finished"}), Summary.of({"energy_joules": [3, 4], "test_accuracy": 1})
    assert older == replace(Summary(), status="finished")
    assert older.parameters is None and older.layers == [] and older.ended
    assert later.values()["energy_joules"] == [3, 4] and later.test_accuracy == 1
    assert "other" not in later.values()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(sorted(Summary().values())), JSON))
def test_no_values_harm_who_reads_them(values):
    summary = Summary.of(values)
    assert isinstance(summary.status, str) and isinstance(summary.config, dict) and isinstance(summary.layers, list)
    assert summary.parameters is None or isinstance(summary.parameters, int)
    assert Summary.of(summary.values()) == summary


def test_the_columns_begin_as_they_always_did():
    assert ",".join(METRICS).startswith(OLD)
