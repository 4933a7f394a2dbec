"""The smallest network that is good enough and the best that is small enough, against sums done by hand."""

from __future__ import annotations

import math
import random

import pytest
from runs import make
from scipy import stats

from tdcompress.results.answers.best import MEASURES, best_under, smallest_within
from tdcompress.results.answers.networks import Difference, beyond, difference, networks
from tdcompress.results.rows import read_runs
from tdcompress.tensor.errors import ConfigError

PARAMETERS = MEASURES["parameters"]


@pytest.fixture
def results(tmp_path):
    """Dense at 96 %, tt a little behind, cp smaller and as far behind as its seeds spread, ht far behind."""
    cells = {
        "dense": (10_000, (0.959, 0.960, 0.961)), "tt": (1000, (0.956, 0.957, 0.958)),
        "cp": (500, (0.930, 0.955, 0.965)), "ht": (400, (0.899, 0.900, 0.901)),
    }  # fmt: skip
    for method, (parameters, accuracies) in cells.items():
        for seed, accuracy in enumerate(accuracies):
            make(tmp_path, method, accuracy, parameters=parameters, seed=seed)
    make(tmp_path, "tt", seed=3, status="diverged")
    make(tmp_path, "tr", status="diverged", parameters=10)
    return tmp_path


@pytest.mark.parametrize("seed", range(20))
def test_beyond_the_spread_is_welchs_test(seed):
    draw = random.Random(seed)
    first, second = ([draw.gauss(mean, 0.01) for _ in range(draw.randint(2, 6))] for mean in (0.9, 0.915))
    assert beyond(first, second) == (stats.ttest_ind(first, second, equal_var=False).pvalue < 0.05)


def test_one_seed_tells_nothing_and_equal_seeds_tell_all():
    assert beyond([0.9], [0.1, 0.2]) is None
    assert beyond([0.9, 0.9], [0.9, 0.9]) is False
    assert beyond([0.9, 0.9], [0.8, 0.8]) is True


def test_networks_are_over_their_seeds(results):
    dense, cp, ht, tt = networks(read_runs(results))
    assert [one.label for one in (dense, cp, ht, tt)] == ["dense", "cp 10x", "ht 10x", "tt 10x"]
    assert dense.baseline and not tt.baseline
    assert tt.mean == pytest.approx(0.957) and tt.deviation == pytest.approx(0.001)
    assert tt.lost == {"diverged": 1} and dense.lost == {}
    gap = difference(tt.accuracies, dense.accuracies)
    assert gap.points == pytest.approx(-0.3) and gap.beyond
    make(results, "btt")
    assert math.isnan(networks(read_runs(results, method="btt"))[0].deviation)


def within(results, points):
    (answer,) = smallest_within(networks(read_runs(results)), PARAMETERS, points)
    return answer


def test_the_smallest_within_points_of_dense(results):
    answer = within(results, 0.3)
    assert answer.best is not None and (answer.best.network.label, answer.best.size) == ("tt 10x", 1000)
    cp, ht = answer.rivals
    assert cp.missed == Difference(0.7, False) and ht.missed == Difference(5.7, True)
    answer = within(results, 0.29)
    assert answer.best is None and [one.network.method for one in answer.rivals] == ["tt", "cp", "ht"]
    answer = within(results, 6)
    assert answer.best is not None and answer.best.network.method == "ht" and answer.rivals == ()
    with pytest.raises(ConfigError, match="no finished run of method=dense"):
        list(smallest_within(networks(read_runs(results, method="tt")), PARAMETERS, 1))


def test_of_about_the_same_size_the_most_accurate_is_chosen(results):
    for parameters, rank in ((1020, "9x"), (1021, "8x")):
        for seed in (0, 1):
            make(results, "tr", 0.9595, parameters=parameters, seed=seed, rank=rank)
    answer = within(results, 0.3)
    assert answer.best is not None and answer.best.size == 1020
    assert (answer.rivals[0].network.label, answer.rivals[0].missed) == ("tt 10x", Difference(0.25, True))


def test_the_best_under_a_size(results):
    found = networks(read_runs(results))
    methods = {}
    for limit in (399, 400, 999, 1000, 1e6):
        (answer,) = best_under(found, PARAMETERS, limit)
        methods[limit] = [one.network.method for one in (answer.best, *answer.rivals) if one]
        assert (answer.best is None) == (limit == 399) == any(one.missed is None for one in answer.rivals)
    ranked = ["dense", "tt", "cp", "ht"]
    assert methods == {399: ranked[::-1], 400: ranked[3:], 999: ranked[2:], 1000: ranked[1:], 1e6: ranked}
    assert list(best_under(found, MEASURES["bytes"], 1e9)) == []


def test_files_are_compared_with_their_own_kind(results):
    exports = {"tt": ("onnx", 5000), "cp": ("onnx", 4000), "ht": ("torch", 10)}
    for method, (form, size) in exports.items():
        run = make(results, method, 0.957 if method == "tt" else 0.95, seed=0)
        run.add_export({"format": form, "bytes": size, "ms": {"1": size / 1000}, "device": "a CPU"})
    onnx, torch = best_under(networks(read_runs(results)), MEASURES["ms"], 5)
    assert (onnx.alike, torch.alike) == (("onnx", "a CPU"), ("torch", "a CPU"))
    assert onnx.best is not None and (onnx.best.network.method, onnx.best.size, onnx.unknown) == ("tt", 5, 2)
    assert torch.best is not None and torch.best.network.method == "ht"
    make(results, "dense", 0.96, seed=0, parameters=10_000).add_export(
        {"kind": "onnx", "format": "onnx", "bytes": 9000, "ms": {"1": 9}, "device": "a GPU"}
    )
    for points, measure, sizes in ((90, "ms", [None, None]), (90, "bytes", [9000, None])):
        found = [one.baseline for one in smallest_within(networks(read_runs(results)), MEASURES[measure], points)]
        assert [None if one is None or math.isnan(one.size) else one.size for one in found] == sizes


def test_files_with_other_weights_are_of_another_kind(results):
    run = make(results, "tt", 0.957, seed=0)
    for kind, size in (("onnx", 10), ("onnx folded", 90), ("onnx", 11)):
        run.add_export({"kind": kind, "format": "onnx", "bytes": size, "ms": {}, "device": "a CPU"})
    assert [one["bytes"] for one in run.summary().exports] == [90, 11]
    make(results, "cp", 0.95, seed=0).add_export({"kind": "onnx folded", "format": "onnx", "bytes": 80, "ms": {}})
    (answer,) = best_under(networks(read_runs(results)), MEASURES["bytes"], 100)  # the kind that both have
    assert answer.alike == ("onnx folded",) and answer.best is not None and answer.best.size == 90
    make(results, "ht", 0.95, seed=0).add_export({"kind": "onnx", "format": "onnx", "bytes": 12, "ms": {}})
    alike = [answer.alike for answer in best_under(networks(read_runs(results)), MEASURES["bytes"], 100)]
    assert alike == [("onnx",), ("onnx folded",)]
