"""What people are told: names as they are written, settings in words, no paths, no hashes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from runs import make

from tdcompress.config.schema import DatasetConfig, MethodConfig, OptimConfig
from tdcompress.results.drawing import words
from tdcompress.results.drawing.comparison import at_one_rate, comparisons
from tdcompress.results.drawing.figures import drawings
from tdcompress.results.drawing.look import Look
from tdcompress.results.identity import whole_key
from tdcompress.results.rows import read_metrics, read_runs


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fashion_mnist", "Fashion-MNIST"), ("cifar100", "CIFAR-100"), ("digits", "digits"), ("vgg16", "VGG-16"),
        ("lenet5", "LeNet-5"), ("vit_small", "ViT-Small"), ("lstm", "LSTM"), ("efficientnet_b0", "EfficientNet-b0"),
        ("my.package.tiny_net", "Tiny-Net"),
    ],
)  # fmt: skip
def test_names(name, said):
    assert words.spelled(name) == said


def test_settings_are_words():
    told = words.said(
        "arch.width=0.25 dataset.limit=12000 dataset.root=/a/c precision=bf16 optim.optimizer._target_=torch.optim.SGD "
        "dataset.validation=0.1 init_from=results/runs/mnist/lenet/dense-4f7dce3a/seed0 init=orthogonal"
    )
    assert told == (
        "width 0.25, 12,000 training images, bf16, SGD, 10 % held out, from the weights of dense-4f7dce3a, "
        "init orthogonal"
    )
    assert [words.rank(rank) for rank in ("10x", "macs:0.2", "params:24000", "adaptive:10x", "8")] == [
        "10x", "20 % of the MACs", "24,000 parameters", "adaptive 10x", "rank 8",
    ]  # fmt: skip


def test_a_folder_is_called_by_its_label_or_its_own_name(tmp_path):
    make(tmp_path / "blank", dataset=DatasetConfig("image_folder", root="/data/my cats"))
    (blank,) = comparisons(read_runs(tmp_path / "blank"))
    assert (blank.subject, blank.facts) == ("LeNet on my cats", ["4 epochs", "batch size 100"])
    make(tmp_path, dataset=DatasetConfig("image_folder", root="/data/of/cats"), seed=0)
    assert comparisons(read_runs(tmp_path))[0].subject == "LeNet on cats"
    make(tmp_path, dataset=DatasetConfig("image_folder", root="/data/of/cats", label="Cats & Co."), seed=1)
    runs = read_runs(tmp_path)
    (comparison,) = comparisons(runs)  # a label makes no other run
    assert not any("fail" in drawing.caption for drawing in drawings(runs, read_metrics(runs)))  # a folder's default
    assert comparison.subject == "LeNet on Cats & Co." and len(comparison.runs) == 2


def test_names_of_files_say_what_differs_and_no_two_are_alike(tmp_path):
    make(tmp_path)
    make(tmp_path, epochs=8)
    make(tmp_path, epochs=8, batch_size=50)
    make(tmp_path, dataset=DatasetConfig("image_folder", root="/one/cats"))
    make(tmp_path, dataset=DatasetConfig("image_folder", root="/other/cats"))
    runs = read_runs(tmp_path)
    assert sorted(comparison.name for comparison in comparisons(runs)) == [
        "lenet-cats-in-one", "lenet-cats-in-other", "lenet-mnist-4-epochs", "lenet-mnist-8-epochs-batch-size-100",
        "lenet-mnist-8-epochs-batch-size-50",
    ]  # fmt: skip
    found = list(drawings(runs, read_metrics(runs)))
    assert len({drawing.name for drawing in found}) == len(found)
    assert {f"lenet-cats-in-{place}_seconds-per-epoch" for place in ("one", "other")} <= {one.name for one in found}
    assert not any("/" in drawing.caption + drawing.title or "=" in drawing.caption for drawing in found)


def test_comparisons_are_told_apart_by_what_is_used_before_its_values(tmp_path):
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": "steps"}
    make(tmp_path, optim=OptimConfig(scheduler={"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 5}))
    make(tmp_path, optim=OptimConfig(scheduler=cosine, interval="step"))
    found = {comparison.title: comparison for comparison in comparisons(read_runs(tmp_path))}
    assert sorted(found) == ["LeNet on MNIST, CosineAnnealingLR", "LeNet on MNIST, StepLR"]
    facts = found["LeNet on MNIST, CosineAnnealingLR"].facts[-3:]
    assert facts == ["CosineAnnealingLR", "schedule by step", "T max steps"]


def test_what_only_cores_have_makes_no_other_comparison(tmp_path):
    usual = OptimConfig()
    for optim in (usual, replace(usual, core_lr="balanced")):
        make(tmp_path, "dense", optim=optim)
        make(tmp_path, "tt", optim=optim)
    make(tmp_path, "tt", optim=usual, full_rank_epochs=2, cut="at_once")
    (comparison,) = comparisons(read_runs(tmp_path))
    assert sorted(comparison.runs["variant"]) == ["", "", "cut=at_once full_rank_epochs=2", "optim.core_lr=balanced"]
    assert whole_key("cut=at_once") == "cut=at_once" and whole_key("optim.core_lr=balanced")[:6] == "optim."


def test_one_rate_is_that_of_the_most_finished_runs(tmp_path):
    for seed in range(3):
        make(tmp_path, lr=1.0, seed=seed, status="diverged")
        make(tmp_path, lr=0.1, seed=seed, status="finished" if seed else "diverged")
    assert set(at_one_rate(read_runs(tmp_path))["lr"]) == {0.1}


def test_what_all_lines_share_is_said_once(tmp_path):
    make(tmp_path, "dense")
    for name in ("tt", "cp"):
        for layout in ("split", "paired"):
            make(tmp_path, MethodConfig(name, init="orthogonal", layout=layout))
    runs = read_runs(tmp_path)
    found = {drawing.name: drawing for drawing in drawings(runs, read_metrics(runs))}
    drawing = found["lenet-mnist_test-accuracy-over-epochs"]
    with Look().applied():
        texts = {text.get_text().replace("\n", " ") for text in drawing.plot(Look()).axes[0].texts}
    assert texts == {"dense", *(f"{name} layout {layout}" for name in ("tt", "cp") for layout in ("split", "paired"))}
    assert "init orthogonal" in drawing.caption
