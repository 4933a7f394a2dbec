"""What a figure says of its runs, and of those that it lacks."""

from __future__ import annotations

from runs import make

from tdcompress.config.schema import OptimConfig
from tdcompress.results.drawing.comparison import comparisons
from tdcompress.results.drawing.figures import drawings
from tdcompress.results.drawing.page.answer import answers
from tdcompress.results.rows import read_metrics, read_runs


def drawn(results):
    runs = read_runs(results)
    return {drawing.name.split("_", 1)[1]: drawing for drawing in drawings(runs, read_metrics(runs))}


def test_networks_of_other_rates_are_said_to_be_missing(tmp_path):
    for seed in range(2):
        make(tmp_path, "dense", seed=seed)
        make(tmp_path, "tt", seed=seed, lr=0.02)
        make(tmp_path, "tt", seed=seed)
        make(tmp_path, "cp", seed=seed, lr=0.02)
    make(tmp_path, "cp", lr=0.1, status="diverged")
    for name in ("test-accuracy-over-epochs", "seconds-per-epoch"):
        drawing = drawn(tmp_path)[name]
        assert "Not drawn: cp (learning rate 0.02, 0.1)." in drawing.caption
    (comparison,) = comparisons(read_runs(tmp_path))
    assert all(answer.asked.endswith("dense, learning rate 0.05") for answer in answers(comparison))
    make(tmp_path, "ht", accuracy=0.8)
    (answer,) = [one for one in answers(comparisons(read_runs(tmp_path))[0]) if one.asked.startswith("10x")]
    assert (answer.asked, answer.best, answer.next) == ("10x, learning rate 0.05", "tt", "ht")


def test_an_optimizer_is_named(tmp_path):
    optim = OptimConfig(optimizer={"_target_": "torch.optim.AdamW", "weight_decay": 0.3})
    for method in ("tt", "cp"):
        make(tmp_path, method, optim=optim)
    assert all("AdamW" in one.caption and "0.3" not in one.caption for one in drawn(tmp_path).values())


def test_a_choice_that_all_have_hides_no_gap(tmp_path):
    for method, rank in (("tt", "5x"), ("tt", "10x"), ("cp", "5x")):
        parameters = 2000 if rank == "5x" else 1000
        make(tmp_path, method, rank=rank, parameters=parameters, full_rank_epochs=0)
    assert "Not drawn: cp 10x (no run)." in drawn(tmp_path)["accuracy-over-parameters"].caption


def test_reasons_are_the_right_ones(tmp_path):
    for seed, device in enumerate(("a CPU", "a CPU", "a GPU")):
        for method in ("tt", "dense"):
            make(tmp_path, method, seed=seed, device=device)
    (make(tmp_path, "cp").directory / "metrics.csv").unlink()
    (make(tmp_path, "cp", seed=1).directory / "summary.json").write_text("{")
    figures = drawn(tmp_path)
    assert "cp seed 0 (no test accuracy of all epochs)" in figures["test-accuracy-over-epochs"].caption
    on_gpu = figures["seconds-per-epoch_a-gpu"].caption
    assert "tt seeds 0-1 (on another device)" in on_gpu and "cp seed 0 (on another device)" in on_gpu
    assert all(one.caption.count("seed 1 (") < 2 for one in figures.values())


def test_what_is_missing_is_said(tmp_path):
    for seed in range(3):
        make(tmp_path, "dense", seed=seed)
        make(tmp_path, "tt", seed=seed, rank="5x", parameters=2000)
        make(tmp_path, "tt", seed=seed, rank="10x", status="diverged")
        make(tmp_path, "cp", seed=seed, rank="10x", status="running" if seed == 1 else "finished")
        if seed < 2:
            make(tmp_path, "ht", seed=seed, rank="10x")
    (make(tmp_path, "tr", rank="10x").directory / "summary.json").write_text("{")
    (make(tmp_path, "cp", rank="5x").directory / "summary.json").write_text("{")
    caption = drawn(tmp_path)["accuracy-over-parameters"].caption
    for told in ("tt 10x (diverged)", "cp 10x seed 1 (interrupted)", "ht 10x seed 2 (no run)", "ht 5x (no run)"):
        assert told in caption
    told = caption.split("Not drawn: ")[1]
    assert "cp seed 0 (broken)" in told and "dense" not in told and "tr" not in told
