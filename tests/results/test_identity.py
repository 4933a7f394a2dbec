"""Where a run lies and what it is follow from its configuration."""

import itertools
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import BASELINE

from tdcompress.config.schema import ArchConfig, DatasetConfig, MethodConfig, OptimConfig, TrainConfig, validate
from tdcompress.results.identity import differences, identity, plain, resolved, run_directory, typed


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({}, "mnist/vgg16/tt-8/seed0"),
        ({"seed": 3}, "mnist/vgg16/tt-8/seed3"),
        ({"rank": "10x"}, "mnist/vgg16/tt-10x/seed0"),
        ({"rank": "params:120000"}, "mnist/vgg16/tt-params-120000/seed0"),
        ({"method": MethodConfig("tt", conv="cp")}, "mnist/vgg16/tt+cp_conv-8/seed0"),
        ({"method": MethodConfig("dense"), "rank": 5}, "mnist/vgg16/dense/seed0"),
        ({"device": "cuda", "dataset": DatasetConfig("mnist", root="/data")}, "mnist/vgg16/tt-8/seed0"),
    ],
)
def test_directory_follows_from_the_configuration(change, path):
    config = replace(BASELINE, **change)
    baseline = replace(BASELINE, method=MethodConfig(config.method.format))
    assert run_directory(config, baseline) == Path("results/runs") / path


def test_what_else_differs_is_hashed():
    optim = OptimConfig({"_target_": "a.B"})
    changes = ({}, {"lr": 0.1}, {"epochs": 3}, {"lr": 0.1, "epochs": 3}, {"optim": optim})
    names = {run_directory(replace(BASELINE, **change), BASELINE).parent.name for change in changes}
    assert len(names) == 5
    assert all(name == "tt-8" or (name.startswith("tt-8-") and len(name) == 13) for name in names)


def layered(**layers: object) -> TrainConfig:
    return replace(BASELINE, method=MethodConfig("tt", layers={name: {"rank": rank} for name, rank in layers.items()}))


def test_of_patterns_that_fit_one_layer_the_last_holds_so_that_their_order_counts():
    def same(one: TrainConfig, other: TrainConfig) -> bool:
        equal = identity(plain(one)) == identity(plain(other))
        assert equal == (run_directory(one, BASELINE) == run_directory(other, BASELINE))
        assert equal == (not differences(identity(plain(one)), identity(plain(other))))
        return equal

    assert not same(layered(**{"fc*": 2, "fc1": 4}), layered(**{"fc1": 4, "fc*": 2}))
    assert not same(layered(**{"*1": 2, "fc?": 4}), layered(**{"fc?": 4, "*1": 2}))
    assert same(layered(fc1=2, fc2=4), layered(fc2=4, fc1=2))
    assert same(layered(**{"fc*": 2, "conv1": 4}), layered(**{"conv1": 4, "fc*": 2}))


@pytest.mark.parametrize("group", ["dataset.target", "arch.target", "optim.optimizer", "optim.scheduler"])
def test_an_argument_that_is_null_or_empty_or_nested_is_another_than_none(group):
    first, second = group.split(".")
    given = [{}, {"x": None}, {"x": "null"}, {"x": {}}, {"x": []}, {"x": {"y": 1}}, {"x.y": 1}, {"x": {"y": None}}]
    saved = [plain(BASELINE) | {first: plain(BASELINE)[first] | {second: {"_target_": "a.B", **one}}} for one in given]
    baseline = typed(plain(BASELINE) | {first: plain(BASELINE)[first] | {second: {"_target_": "a.B", "x": 3}}})
    for against in (BASELINE, baseline):
        assert len({run_directory(typed(one), against) for one in saved}) == len(given)
    for one, other in itertools.combinations(saved, 2):
        assert identity(one) != identity(other) and differences(identity(one), identity(other))


def test_a_hybrid_of_dense_and_a_format_has_a_rank():
    config = replace(BASELINE, method=MethodConfig("dense", linear="tt"))
    assert run_directory(config, config).parent.name == "dense+tt_linear-8"


def test_own_loaders_and_models_are_named_by_their_path():
    config = replace(BASELINE, dataset=DatasetConfig(target={"_target_": "lab.data.street"}))
    assert run_directory(config, config).parts[2] == "lab.data.street"


NAMES = st.text(max_size=300) | st.text("./\\\0a", max_size=9)


@settings(deadline=None, derandomize=True)
@given(NAMES, NAMES, NAMES, NAMES, st.booleans())
def test_no_name_leads_out_of_the_results(dataset, arch, method, rank, own):
    data, network = DatasetConfig(dataset), ArchConfig(arch)
    if own:
        data, network = DatasetConfig(target={"_target_": dataset}), ArchConfig(target={"_target_": arch})
    config = TrainConfig(dataset=data, arch=network, method=MethodConfig(method), rank=rank)
    directory = run_directory(config, config)
    assert len(directory.parts) == 6
    assert directory.parts[:2] == ("results", "runs")
    for part in directory.parts[2:]:
        assert len(part) < 255
        assert re.fullmatch(r"[A-Za-z0-9_+=][A-Za-z0-9_.+=-]*", part)


def test_names_that_need_replacing_stay_apart():
    paths = {run_directory(replace(BASELINE, rank=rank), BASELINE) for rank in ("a/b", "a b", "a-b", "../a/b", "..")}
    assert len(paths) == 5


@pytest.mark.parametrize("name", ["image_folder", "video_folder"])
def test_a_folder_is_its_own_data_set(name):
    one, other = (replace(BASELINE, dataset=DatasetConfig(name, root=root)) for root in ("cats", "dogs"))
    assert differences(identity(plain(one)), identity(plain(other))) == {"dataset.root": ("cats", "dogs")}


def test_a_dense_run_is_one_whatever_its_method_says():
    dense = replace(BASELINE, method=MethodConfig("dense"))
    other = replace(dense, rank="10x", method=MethodConfig("dense", init="variance", decay="scaled", layout="split"))
    assert identity(plain(other)) == identity(plain(dense))
    partly = replace(dense, method=MethodConfig("dense", conv="tt", decay="scaled"))
    assert identity(plain(partly))["method"]["decay"] == "scaled"


def test_identity_ignores_where_and_fills_in_fields_of_later_versions():
    dataset = replace(BASELINE.dataset, root="/data", stream=True, workers=3)
    config = replace(BASELINE, results_dir="elsewhere", device="cpu", rank="8", dataset=dataset, profile=True)
    assert identity(plain(config)) == identity(plain(BASELINE))
    older = plain(BASELINE)
    del older["method"]["plan"], older["lr"]
    assert differences(identity(older), identity(plain(BASELINE))) == {}
    assert differences(identity(older), identity(plain(replace(BASELINE, lr=0.5)))) == {"lr": (BASELINE.lr, 0.5)}


@pytest.mark.parametrize(
    ("rank", "saved", "name"),
    [
        (8, 8, "tt-8"),
        ("8", 8, "tt-8"),
        ([4, 8], "4-8", "tt-4-8"),
        ("reference", "reference", "tt-reference"),
        ("10X", "10x", "tt-10x"),
        ("16.6x", "16.6x", "tt-16.6x"),
        ("params:1.2e5", "params:120000", "tt-params-120000"),
        ("macs:0.20", "macs:0.2", "tt-macs-0.2"),
        ("adaptive:10x", "adaptive:10x", "tt-10x"),  # after full rank, the default, by cuts as well
    ],
)
def test_a_checked_rank_is_saved_as_a_number_or_text_and_read_again(rank, saved, name):
    layers = {"features.*": {"rank": [4, 8]}, "fc": {"rank": "reference", "layout": "split"}}
    baseline = replace(BASELINE, method=MethodConfig("tt", layers=layers))
    config = validate(replace(baseline, rank=rank))
    values = plain(config)
    assert values["rank"] == saved and type(values["rank"]) is type(saved)
    assert values["method"]["layers"] == layers  # as they were given: the hash of a directory goes by them
    assert plain(typed(values)) == values and typed(values) == config == pickle.loads(pickle.dumps(config))
    assert run_directory(config, baseline).parent.name == name
    assert run_directory(config, BASELINE).parent.name == f"{name}-8d0716ae"


def test_a_budget_that_is_cut_while_training_has_a_name_of_its_own_from_scratch_alone():
    cut, plain_one = (validate(replace(BASELINE, rank=rank)) for rank in ("adaptive:10x", "10x"))
    assert identity(plain(cut)) == identity(plain(plain_one)) and resolved(cut) == resolved(plain_one)
    cut, plain_one = (replace(config, full_rank_epochs=0) for config in (cut, plain_one))
    names = [run_directory(config, config).parent.name for config in (cut, plain_one)]
    assert names[0] == names[1].replace("10x", "adaptive-10x", 1) != names[1]
    assert resolved(cut).rank == cut.rank
