"""The figures: what is drawn together, what is said to be missing, and numbers against plain arithmetic."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import numpy
import pytest
from runs import make

from tdcompress.config.schema import DatasetConfig
from tdcompress.results.drawing.figures import drawings, plot_all
from tdcompress.results.drawing.look import Look
from tdcompress.results.record import read_metrics_text
from tdcompress.results.rows import read_metrics, read_runs
from tdcompress.tensor.errors import ConfigError


def drawn(results):
    runs = read_runs(results)
    return {drawing.name.split("_", 1)[1]: drawing for drawing in drawings(runs, read_metrics(runs))}


def axes(drawing):
    """The axes of a figure that has one."""
    with Look().applied():
        (axis,) = drawing.plot(Look()).axes
    return axis


def lines(drawing):
    """Label to the points of its line, as drawn."""
    axis = axes(drawing)
    found = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    found |= {bars.get_label(): bars.lines[0] for bars in axis.containers if bars.get_label()[0] != "_"}
    return {label: list(zip(*line.get_data(), strict=True)) for label, line in found.items()}


def test_a_line_is_the_mean_over_seeds_in_per_cent(tmp_path):
    for seed, accuracy in enumerate((0.90, 0.92, 0.97)):
        make(tmp_path, seed=seed, accuracy=accuracy)
    figures = drawn(tmp_path)
    assert set(figures) == {"training-accuracy-over-epochs", "test-accuracy-over-epochs", "seconds-per-epoch"}
    (points,) = lines(figures["test-accuracy-over-epochs"]).values()
    mean = 100 * (0.90 + 0.92 + 0.97) / 3
    numpy.testing.assert_allclose(points, [(1, mean - 3), (2, mean - 2), (3, mean - 1), (4, mean)])
    band = axes(figures["test-accuracy-over-epochs"]).collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(87) and band[:, 1].max() == pytest.approx(97)
    assert "LeNet on MNIST, 4 epochs, batch size 100, learning rate 0.05, 10x. Mean and range of seeds 0-2. Bands:" in (
        figures["test-accuracy-over-epochs"].caption
    )
    (bar,) = axes(figures["seconds-per-epoch"]).patches
    assert bar.get_width() == 3.0


def test_runs_that_cannot_be_compared_are_never_in_one_figure(tmp_path):
    make(tmp_path)
    make(tmp_path, "cp", epochs=8)
    make(tmp_path, "ht", dataset=DatasetConfig("mnist", limit=500))
    make(tmp_path, "tr", batch_size=50)
    make(tmp_path, "tucker", dataset=DatasetConfig("digits"))
    runs = read_runs(tmp_path)
    found = list(drawings(runs, read_metrics(runs)))
    curves = [drawing for drawing in found if "test-accuracy" in drawing.name]
    assert len(found) == 15 and len({drawing.name for drawing in found}) == 15
    assert sorted(label for drawing in curves for label in lines(drawing)) == ["cp", "ht", "tr", "tt", "tucker"]
    assert sum("500 training images" in drawing.caption for drawing in curves) == 1
    assert sum("batch size 50," in drawing.caption for drawing in curves) == 1


def test_runs_with_and_without_validation_are_never_in_one_figure(tmp_path):
    make(tmp_path, "tt", accuracy=0.9)
    make(tmp_path, "cp", accuracy=0.9, dataset=DatasetConfig("mnist", validation=0.1))
    runs = read_runs(tmp_path)
    found = list(drawings(runs, read_metrics(runs)))
    held = [drawing for drawing in found if "10 % held out" in drawing.caption]
    assert len(found) == 7 and len(held) == 4 and all(list(lines(drawing)) in ([], ["cp"]) for drawing in held)
    (curve,) = [drawing for drawing in found if "validation-accuracy-over-epochs" in drawing.name]
    assert curve in held
    numpy.testing.assert_allclose(lines(curve)["cp"], [(1, 85), (2, 90), (3, 87), (4, 88)])


def test_a_learning_rate_is_chosen_by_validation_where_there_is_one(tmp_path):
    for lr, accuracy, seed in ((0.01, 0.9, 0), (0.1, 0.89, 0)):
        run = make(tmp_path, lr=lr, accuracy=accuracy, seed=seed, dataset=DatasetConfig("mnist", validation=0.1))
        run.write_summary(replace(run.summary(), best_validation_accuracy=0.5 + lr))
    assert "learning rate 0.1," in drawn(tmp_path)["test-accuracy-over-epochs"].caption


def test_times_of_different_devices_are_never_in_one_figure(tmp_path):
    make(tmp_path)
    make(tmp_path, "cp", device="a GPU")
    figures = drawn(tmp_path)
    assert {"seconds-per-epoch_a-cpu", "seconds-per-epoch_a-gpu"} <= set(figures)
    assert "a GPU" in figures["seconds-per-epoch_a-gpu"].caption
    assert len(lines(figures["test-accuracy-over-epochs"])) == 2


def test_accuracy_over_counts(tmp_path):
    make(tmp_path, "dense", accuracy=0.99, parameters=10_000)
    for rank, parameters, accuracy in (("2x", 5000, 0.98), ("10x", 1000, 0.9), ("5x", 2000, 0.95)):
        make(tmp_path, rank=rank, parameters=parameters, accuracy=accuracy)
        make(tmp_path, "cp", rank=rank, parameters=parameters, accuracy=accuracy - 0.2)
    figures = drawn(tmp_path)
    found = lines(figures["accuracy-over-parameters"])
    assert list(found) == ["dense", "cp", "tt"]
    numpy.testing.assert_allclose(found["tt"], [(1000, 90), (2000, 95), (5000, 98)])
    assert {y for _, y in found["dense"]} == {99}
    numpy.testing.assert_allclose(lines(figures["accuracy-over-compression-ratio"])["tt"], [(2, 98), (5, 95), (10, 90)])
    numpy.testing.assert_allclose(lines(figures["accuracy-over-macs"])["cp"], [(3000, 70), (6000, 75), (15000, 78)])
    # With several methods at several ranks, one figure of curves a rank, the baseline in each.
    assert list(lines(figures["test-accuracy-over-epochs_5x"])) == ["dense", "cp", "tt"]


def test_sizes_that_are_all_alike_make_no_axis(tmp_path):
    make(tmp_path, "dense", parameters=10_000)
    make(tmp_path, parameters=1000)
    make(tmp_path, "cp", parameters=1090)
    assert not any(name.startswith("accuracy-over") for name in drawn(tmp_path))
    make(tmp_path, "ht", parameters=1110)
    assert {"accuracy-over-parameters", "accuracy-over-macs"} <= set(drawn(tmp_path))


def test_ranks_of_one_method_share_a_figure_in_their_order(tmp_path):
    for rank in (16, 8, 4):
        make(tmp_path, rank=rank)
    assert list(lines(drawn(tmp_path)["test-accuracy-over-epochs"])) == ["tt 4", "tt 8", "tt 16"]


def test_accuracy_over_the_learning_rate(tmp_path):
    for lr in (0.001, 0.01, 0.1):
        make(tmp_path, lr=lr, accuracy=0.5 + lr)
        make(tmp_path, "cp", lr=lr, accuracy=0.4, status="finished" if lr < 0.1 else "diverged")
    figures = drawn(tmp_path)
    found = lines(figures["accuracy-over-learning-rate"])
    numpy.testing.assert_allclose(found["tt"], [(0.001, 50.1), (0.01, 51), (0.1, 60)])
    numpy.testing.assert_allclose(found["cp"], [(0.001, 40), (0.01, 40)])
    axis = axes(figures["accuracy-over-learning-rate"])
    crosses = [line for line in axis.lines if line.get_marker() == "x" and line.get_transform() != axis.transAxes]
    assert [len(line.get_xdata()) for line in crosses] == [1, 0]
    assert "Not drawn" not in figures["accuracy-over-learning-rate"].caption
    assert "learning rate 0.01," in figures["test-accuracy-over-epochs"].caption  # the one that serves the runs best


def test_a_line_over_sizes_has_either_fixed_or_adaptive_ranks(tmp_path):
    for size in (10, 20):
        for method in ("tt", "cp"):
            make(tmp_path, method, rank=f"{size}x", parameters=20_000 // size, full_rank_epochs=0)
        make(tmp_path, "tt", rank=f"adaptive:{size}x", parameters=20_000 // size, full_rank_epochs=0)
    drawing = drawn(tmp_path)["accuracy-over-parameters"]
    assert sorted(lines(drawing)) == ["cp", "tt", "tt adaptive"]
    assert "no run" not in drawing.caption


def test_networks_of_budgets_of_another_kind_are_no_part_of_a_line(tmp_path):
    for rank, size in (("5x", 2000), ("10x", 1000), ("macs:0.2", 1500), ("macs:0.1", 500), ("8", 700)):
        make(tmp_path, rank=rank, parameters=size)
        make(tmp_path, "cp", rank=rank, parameters=size)
    bars = [bars for bars in axes(drawn(tmp_path)["accuracy-over-parameters"]).containers if bars.get_label() == "tt"]
    assert sorted(tuple(one.lines[0].get_xdata()) for one in bars) == [(500, 1500), (700,), (1000, 2000)]


def test_seconds_that_nobody_knows_are_not_drawn(tmp_path):
    for run in (make(tmp_path), make(tmp_path, "cp")):
        run.write_summary(replace(run.summary(), train_seconds_per_epoch=None))
    assert not [name for name in drawn(tmp_path) if "seconds" in name]


def test_seconds_behind_an_epoch_without_are_unknown(tmp_path):
    for seed in range(2):
        run = make(tmp_path, seed=seed)
        rows = [
            replace(row, train_seconds=2.0) for row in read_metrics_text((run.directory / "metrics.csv").read_text())
        ]
        if seed == 0:
            rows[1] = replace(rows[1], train_seconds=math.nan)
        run.write_metrics(rows)
    runs = read_runs(tmp_path)
    (drawing,) = drawings(runs, read_metrics(runs), "train_seconds", None)
    assert [x for x, _ in lines(drawing)["tt"]] == [2, 4, 6, 8]


def test_letters_that_a_font_lacks_and_signs_of_mathematics(tmp_path):
    make(tmp_path, dataset=DatasetConfig("mnist", label="日本語 $5 and $6_{"))
    with pytest.warns(UserWarning, match="Glyph"):
        assert plot_all(tmp_path, ["png"])


def test_files(tmp_path):
    make(tmp_path)
    make(tmp_path, "cp+a_long_name_that_nobody_would_like_to_read_beside_a_bar_" + "x" * 40)
    written = plot_all(tmp_path, ("png", "svg", "pdf"))
    assert len(written) == 9 and all(path.stat().st_size > 3000 for path in written)
    png = next(path for path in written if path.suffix == ".png").read_bytes()
    assert struct.unpack(">I", png[16:20])[0] == 1050  # 3.5 inches at 300 dots each
    first = next(path for path in written if path.suffix == ".svg")
    before = first.read_bytes()
    plot_all(tmp_path, ("svg",))
    assert first.read_bytes() == before
    with pytest.raises(ConfigError, match="no finished runs like that"):
        plot_all(tmp_path, method="ht")


def test_no_name_leads_a_figure_out_of_its_folder(tmp_path):
    for seed, device in enumerate(("../../a/CPU", "another")):
        run = make(tmp_path / "results", device=device, seed=seed)
        run.write_summary(replace(run.summary(), **dict.fromkeys(("dataset", "arch", "rank"), "../../../evil")))
    written = plot_all(tmp_path / "results", ["png"])
    assert len(written) >= 3 and all(path.parent == tmp_path / "results/figures" for path in written)
    assert all("/" not in path.name and path.is_file() for path in written)
    assert {path.name for path in tmp_path.iterdir()} == {"results"}


def test_nothing_finished_is_nothing_to_draw(tmp_path):
    make(tmp_path, status="diverged")
    with pytest.raises(ConfigError, match="no finished runs in"):
        plot_all(tmp_path)


def test_files_are_compared_where_there_are_some(tmp_path):
    make(tmp_path, "dense", accuracy=0.99, parameters=10_000)
    for rank, size in (("10x", 5000), ("20x", 2500)):
        for method in ("tt", "cp"):
            run = make(tmp_path, method, rank=rank)
            found = {"format": "onnx", "bytes": size, "ms": {"1": size / 1e4, "64": 5.0}, "device": "a CPU"}
            if (method, rank) != ("cp", "20x"):
                run.add_export({**found, "format": "torch", "bytes": 1})
                run.add_export(found)
    figures = drawn(tmp_path)
    sizes, times = figures["accuracy-over-exported-bytes_onnx"], figures["accuracy-over-exported-ms_onnx_a-cpu"]
    assert {name for name in figures if "exported" in name} == {
        sizes.name.split("_", 1)[1],
        times.name.split("_", 1)[1],
    }
    for drawing, small, large in ((sizes, 2500, 5000), (times, 0.25, 0.5)):
        found = lines(drawing)
        assert [found["tt"], found["cp"]] == [[(small, 90), (large, 90)], [(large, 90)]]
        assert {y for _, y in found["dense"]} == {99}
        assert "Not drawn: cp 20x (not exported)." in drawing.caption
    assert "a CPU" in times.caption and "a CPU" not in sizes.caption
