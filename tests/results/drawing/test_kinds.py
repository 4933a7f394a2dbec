"""Figures beside the curves: the Pareto front, layers, ranks, switches, and any column over any other one."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from runs import make

from tdcompress.results.drawing.figures import drawings, plot_all
from tdcompress.results.drawing.look import Look
from tdcompress.results.drawing.pareto import front
from tdcompress.results.record import read_metrics_text
from tdcompress.results.rows import read_metrics, read_runs
from tdcompress.tensor.errors import ConfigError


def drawn(results, x=None, y=None):
    runs = read_runs(results)
    return {drawing.name.split("_", 1)[1]: drawing for drawing in drawings(runs, read_metrics(runs), x, y)}


def plotted(drawing, look=Look()):  # noqa: B008 (frozen)
    with look.applied():
        return drawing.plot(look)


def points(axis):
    """Label to points of each line with a label."""
    found = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    found |= {bars.get_label(): bars.lines[0] for bars in axis.containers if bars.get_label()[0] != "_"}
    return {label: list(zip(*line.get_data(), strict=True)) for label, line in found.items()}


@settings(max_examples=60, deadline=None)
@given(some.lists(some.tuples(some.integers(1, 9), some.integers(1, 9)), min_size=1, max_size=9, unique=True))
def test_nothing_beats_a_point_of_the_front(found):
    costs, gains = zip(*found, strict=True)
    on = front(costs, gains)
    for one, (cost, gain) in enumerate(found):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in found)
        assert (one in on) is not beaten


@pytest.fixture
def sizes(tmp_path):
    """Two methods at two sizes each, and dense."""
    make(tmp_path, "dense", accuracy=0.99, parameters=10_000)
    for method, rank, parameters, accuracy in (
        *(("tt", "5x", 2000, 0.95), ("tt", "10x", 1000, 0.9)),
        *(("cp", "5x", 2000, 0.97), ("cp", "10x", 1000, 0.8)),
    ):
        make(tmp_path, method, rank=rank, parameters=parameters, accuracy=accuracy)
    return tmp_path


def test_the_pareto_front_has_a_panel_for_each_cost(sizes):
    drawing = drawn(sizes)["pareto-front"]
    parameters, macs = plotted(drawing).axes  # all took the same time, and nothing was exported
    numpy.testing.assert_allclose(points(parameters)["Pareto front"], [(1000, 90), (2000, 97), (10_000, 99)])
    beside = [(text.get_text(), text.xy[0]) for text in parameters.texts]
    assert beside == [
        ("10x", 1000),
        ("5x", 2000),
        ("", 10_000),
    ]
    left = parameters.get_window_extent().x0
    assert all(text.get_ha() == "right" for text in parameters.texts)  # of its point, where no other point is
    assert all(text.get_window_extent().x0 >= left - 1 for text in parameters.texts if text.get_text())
    numpy.testing.assert_allclose(points(macs)["cp"], [(3000, 80), (6000, 97)])
    numpy.testing.assert_allclose(points(macs)["dense"], [(30_000, 99)])


def test_times_on_another_device_are_not_on_the_front(sizes):
    for rank, seconds in (("5x", 3.0), ("10x", 4.0), ("20x", 5.0), ("40x", 1.0)):
        run = make(sizes, "ht", rank=rank, device="a GPU" if rank == "40x" else "a CPU")
        run.write_summary(replace(run.summary(), train_seconds_per_epoch=seconds))
    drawing = drawn(sizes)["pareto-front"]
    times = plotted(drawing).axes[2]
    assert times.get_xlabel().replace("\n", " ") == "training seconds per epoch, final network (log scale)"
    assert [x for x, _ in points(times)["ht"]] == [4, 5, 3]
    assert "Training seconds per epoch, final network: a CPU" in drawing.caption


def test_a_panel_has_the_accuracy_of_all_seeds_and_names_what_it_lacks(sizes):
    for seed, accuracy in ((1, 0.7), (2, 0.6)):
        for rank, parameters in (("5x", 2000), ("10x", 1000)):
            make(sizes, "cp", rank=rank, parameters=parameters, accuracy=accuracy, seed=seed)
    for rank in ("5x", "10x"):
        run = make(sizes, "cp", rank=rank, parameters={"5x": 2000, "10x": 1000}[rank], accuracy=0.7, seed=1)
        run.add_export({"format": "onnx", "bytes": 100 if rank == "5x" else 50})
    make(sizes, "dense", accuracy=0.99, parameters=10_000).add_export({"format": "onnx", "bytes": 500})
    drawing = drawn(sizes)["pareto-front"]
    files = plotted(drawing).axes[3]
    numpy.testing.assert_allclose(points(files)["cp"], [(50, 70), (100, (97 + 70 + 60) / 3)])
    assert "Bytes of the exported file: onnx, of some seeds; without" in drawing.caption


LAYERS = [
    {"name": "conv1", "ranks": {}, "parameters": 9, "dense_parameters": 9, "macs": 90, "dense_macs": 90},
    {"name": "conv2", "ranks": {"a": 4}, "parameters": 50, "dense_parameters": 500, "macs": 70, "dense_macs": 700},
    {"name": "fc", "ranks": {"a": 2, "b": 8}, "parameters": 3, "dense_parameters": 300, "macs": 4, "dense_macs": 30},
]


def test_layers_and_their_ranks(tmp_path):
    run = make(tmp_path, "tt")
    ranks = [
        {"epoch": 2, "layers": {"conv2": {"a": 8}, "fc": {"a": 2, "b": 8}}},
        {"epoch": 4, "layers": {"conv2": {"a": 4}, "fc": {"a": 2, "b": 8}}},
    ]
    run.write_summary(replace(run.summary(), layers=LAYERS, ranks=ranks))
    figures = drawn(tmp_path)
    parameters, macs = plotted(figures["cost-by-layer"]).axes
    assert [text.get_text() for text in parameters.get_yticklabels()] == ["conv2", "fc"]
    dense, held = (list(line.get_xdata()) for line in parameters.lines[:2])
    assert (dense, held) == ([500, 300], [50, 3])
    assert [list(line.get_xdata()) for line in macs.lines[:2]] == [[700, 30], [70, 4]]
    (axis,) = plotted(figures["ranks-over-epochs"]).axes
    lines = [list(zip(*line.get_data(), strict=True)) for line in axis.lines if line.get_transform() == axis.transData]
    assert lines == [[(1, 8), (3, 4), (4, 4)], [(1, 5), (3, 5), (4, 5)]]


def test_the_switch_from_full_rank_is_marked(tmp_path):
    run = make(tmp_path)
    rows = [replace(row, parameters=500 if row.epoch <= 2 else 50, macs=9) for row in run_rows(tmp_path)]
    run.write_metrics(rows)
    run.write_summary(replace(run.summary(), dense_parameters=500, dense_macs=9))
    dense = make(tmp_path, "dense")
    drawing = drawn(tmp_path)["test-accuracy-over-epochs"]
    (axis,) = plotted(drawing).axes
    assert [list(line.get_xdata()) for line in axis.lines if line.get_label() == "tt"] == [
        [2, 3, 4]
    ]  # dense until there
    dense.write_metrics([replace(row, test_accuracy=row.test_accuracy - 0.01) for row in rows])
    (other,) = plotted(drawn(tmp_path)["test-accuracy-over-epochs"]).axes
    assert [list(line.get_xdata()) for line in other.lines if line.get_label() == "tt"] == [[1, 2, 3, 4]]
    (ring,) = [line for line in axis.lines if line.get_markersize() == 8]
    assert list(ring.get_xdata()) == [2] and list(ring.get_ydata()) == pytest.approx([88])
    assert "Rings: the switch from full rank to cores" in drawing.caption


def run_rows(results):
    """The epochs of the only run."""
    (path,) = results.glob("runs/*/*/*/*/metrics.csv")
    return read_metrics_text(path.read_text())


def test_the_end_of_a_curve_is_seen_however_low(tmp_path):
    run = make(tmp_path)
    run.write_metrics([replace(row, test_accuracy=0.9 - row.epoch / 10) for row in run_rows(tmp_path)])
    (axis,) = plotted(drawn(tmp_path)["test-accuracy-over-epochs"]).axes
    low, high = axis.get_ylim()
    assert low < 50 and 80 < high < 90


def test_any_column_over_any_other_one(sizes):
    (drawing,) = drawn(sizes, x="macs").values()
    (axis,) = plotted(drawing).axes
    numpy.testing.assert_allclose(points(axis)["tt"], [(3000, 90), (6000, 95)])
    (drawing,) = drawn(sizes, x="parameters", y="train_seconds_per_epoch").values()
    (axis,) = plotted(drawing).axes
    numpy.testing.assert_allclose(points(axis)["cp"], [(1000, 2), (2000, 2)])
    assert {seconds for _, seconds in points(axis)["dense"]} == {
        2
    } and axis.get_ylabel() == "training seconds per epoch, final network"
    assert "a CPU" in drawing.caption
    curves = drawn(sizes, y="train_accuracy", x="epoch")
    assert set(curves) == {"training-accuracy-over-epochs_5x", "training-accuracy-over-epochs_10x"}
    for x, y, said in (
        ("exported", None, "'exported' is no column of numbers"),
        ("macs", "train_loss", "epochs are drawn over"),
        ("test_loss", None, "epochs are drawn over"),
        ("degeneracy", "parameters", "epochs are drawn over"),
    ):
        with pytest.raises(ConfigError, match=said):
            drawn(sizes, x=x, y=y)


def test_what_is_asked_of_a_plot_is_done_or_refused(sizes):
    name = "lenet-mnist_accuracy-over-macs"
    look = Look.sized("5.5x3", title="Ours", order=("tt", "cp"))
    (path,) = plot_all(sizes, ("pdf",), look, figures=(name,))
    assert path.name == f"{name}.pdf"
    data = path.read_bytes()
    assert b"/MediaBox [ 0 0 396 216 ]" in data and b"/FontFile2" in data and b"/Type3" not in data
    before = data
    assert plot_all(sizes, ("pdf",), look, figures=("lenet*over-macs",)) == [path]
    assert path.read_bytes() == before
    for asked, said in (
        ({"figures": ("lenet-pareto",)}, "no figure 'lenet-pareto' (did you mean lenet-mnist_pareto-front or "),
        ({"figures": ("*-pareto",)}, "no figure '*-pareto'"),
        ({"look": Look(order=("tucker",))}, "order=tucker: no run has this method, there are cp, dense, tt"),
        ({"look": Look.sized("1x1"), "figures": (name,)}, f"{name} needs more room than 1 by 1 inches"),
        ({"x": "exported_bytes"}, "no finished runs have both exported_bytes and test_accuracy"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            plot_all(sizes, ("png",), **asked)
