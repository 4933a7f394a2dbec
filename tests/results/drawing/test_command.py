"""The commands of a report, given again, make the runs that they stand under, and no others."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

import pandas
import pytest

from tdcompress.config.compose import call_composed, typed
from tdcompress.config.conf import choices as files
from tdcompress.config.schema import TrainConfig
from tdcompress.results.drawing.page.command import commands
from tdcompress.results.identity import arch_name, choices, dataset_name, identity, method_name, plain
from tdcompress.tensor.formats import BASELINE

RUNS = {
    **{f"optim={name}": [f"optim={name}"] for name in files("optim")},
    **{f"optim={name}, less": [f"optim={name}", "optim.clip=null", "optim.scheduler=null"] for name in files("optim")},
    "core_lr": ["optim=muon", "optim.core_lr=same"],
    "other values": ["optim=sgd", "optim.optimizer.momentum=0.5", "optim.core_lr=balanced"],
    "another optimizer": ["optim=adamw", "optim.optimizer._target_=torch.optim.RMSprop"],
    "flags": ["dataset=mnist", "dataset.padding=2", "dataset.validation=0.1", "precision=fp32"],
    "blanks": ["dataset=image_folder", "dataset.root='data ö, all=1'"],
    "images": ["dataset=image_folder", "dataset.root='a,b=c'", "dataset.image_size=32"],
    "torchvision": ["dataset=image_folder", "arch=torchvision", "arch.model=resnet18", "arch.keep=[fc,conv1]"],
    "own": ["dataset.target={_target_:mine.data,folder:x}", "arch.target={_target_:mine.Net,width:3}"],
    "method": ["method=tt", "method.conv=cp", "method.layers={fc1:{rank:[4,8],layout:split}}"],
    "from scratch": ["rank=10x", "full_rank_epochs=0", "method.layout=channels", "cut=at_once"],
    "weights": ["init_from=results/runs/a b/seed0", "rank=10x"],
    "weights of a seed": ["init_from=results/runs/a/seed3", "rank=10x", "seed=3"],
    "dense": ["method=dense", "optim=muon"],
}


def composed(words: list[str]) -> list[TrainConfig]:
    found: list[TrainConfig] = []
    call_composed(words, lambda one: found.append(typed(one)))
    return found


def row(config: TrainConfig) -> dict[str, Any]:
    variant, setting = choices(plain(config))
    values = {"dataset": dataset_name(config), "arch": arch_name(config), "method": method_name(config.method)}
    rank = "" if values["method"] == BASELINE else str(config.rank)
    columns = {key: getattr(config, key) for key in ("lr", "epochs", "batch_size", "seed")}
    place = "results/runs/mnist/lenet/tt-4/seed0"
    return values | columns | {"rank": rank, "variant": variant, "setting": setting, "directory": place}


def again(configs: list[TrainConfig]) -> list[TrainConfig]:
    lines = commands(pandas.DataFrame([row(config) for config in configs]))
    assert all(line.startswith("tdc train -m ") for line in lines)
    return [config for line in lines for config in composed(shlex.split(line)[2:])]


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_command_makes_the_run_again(words: list[str]):
    (config,) = composed(words)
    (made,) = again([config])
    assert identity(plain(made)) == identity(plain(config))


def test_weights_are_found_from_where_the_results_are_read():
    (config,) = composed(["init_from=results/runs/a b/seed0", "rank=10x"])
    there = row(config) | {"directory": "my papers/results/runs/mnist/lenet/tt-4/seed0"}
    (line,) = commands(pandas.DataFrame([there]))
    (made,) = composed(shlex.split(line)[2:])
    assert made.init_from == "my papers/results/runs/a b/seed0"


def swept(methods: list[str], ranks: list[str], seeds: list[int]) -> list[TrainConfig]:
    lists = (f"method={','.join(methods)}", f"rank={','.join(ranks)}", f"seed={','.join(map(str, seeds))}")
    return composed(["-m", *lists, "arch=lenet5"])


@pytest.mark.parametrize(
    "configs",
    [
        lambda: swept(["tt"], ["4"], [0]) + swept(["cp"], ["8"], [1]),
        lambda: swept(["cp", "tt"], ["10x", "20x"], [1]) + swept(["tr"], ["10x"], [1]),
        lambda: swept(["cp", "tt"], ["10x"], [0, 1]) + swept(["tt"], ["20x"], [1]),
    ],
    ids=["two", "a method of one rank", "a rank of one seed"],
)
def test_a_command_makes_no_other_runs(configs):
    wanted = configs()
    told = sorted(str(identity(plain(config))) for config in wanted)
    assert sorted(str(identity(plain(config))) for config in again(wanted)) == told


def test_methods_and_their_baseline_are_one_sweep():
    runs = swept([BASELINE], ["10x"], [1]) + swept(["tt", "cp"], ["10x", "5x"], [1])
    (line,) = commands(pandas.DataFrame([row(config) for config in runs]))
    assert line.startswith(f"tdc train -m method={BASELINE},cp,tt rank=5x,10x lr=")
    known = {str(identity(plain(config))) for config in again(runs)}
    assert known == {str(identity(plain(config))) for config in runs}


def test_every_method_of_a_report_is_in_a_command():
    configs = list(itertools.chain(*(composed([f"method={name}"]) for name in files("method"))))
    assert {config.method.format for config in again(configs)} == set(files("method"))
