"""The composition as the verbs see it: once or for each run of a sweep, what was given, and what a file had saved."""

from __future__ import annotations

import ast
import shlex
import sys
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

import tdcompress
from tdcompress.config.compose import baseline, call_composed, typed
from tdcompress.config.schema import TrainConfig
from tdcompress.results.identity import plain
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.rank import Size


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdc"])


def _composed(*words):
    found = []
    call_composed(words, found.append)
    return found


def test_one_configuration_of_a_command():
    (one,) = _composed("method=cp", "rank=4", "+method.layers.fc1.rank=2")
    config = typed(one)
    assert isinstance(config, TrainConfig) and (config.method.format, config.rank) == ("cp", Size(4))
    assert config.method.layers == {"fc1": {"rank": 2}}
    assert not one.sweep and one.words == ("method=cp", "rank=4", "+method.layers.fc1.rank=2")
    assert one.given == {"method", "rank", "method.layers.fc1.rank"}


def test_one_for_each_run_of_a_sweep():
    runs = _composed("-m", "method=cp,tt", "rank=4")
    assert [run.words for run in runs] == [("method=cp", "rank=4"), ("method=tt", "rank=4")]
    assert [typed(run).method.format for run in runs] == ["cp", "tt"] and all(run.sweep for run in runs)


@pytest.mark.parametrize(
    "line",
    [
        "-m optim=choice(muon,sgd) rank=4,8 lr=0.1",
        "-m method=glob(t*) seed=range(2)",
        """-m "dataset.root='a, b',c" method.layers={fc1:{rank:3}},{fc1:{rank:[2,3]}} arch.keep=[fc1],[]""",
        "-m +method.layers.fc1.rank=2,3 optim.optimizer.momentum=0.5 optim.scheduler=null",
        "experiment=quick/trl method=dense,cp",
        "experiment=quick/trl method=tt seed=3,4 +method.layers.fc1.rank=2",
        "-m experiment=precision arch.width=0.5 seed=1",
        "experiment=quick/trl -m rank=interval(1,2)",
        "+experiment/quick=trl method=tt,cp",
        "-m results_dir=${hydra:job.num},of-${hydra:job.id}",
    ],
)
def test_the_runs_of_a_sweep_are_those_of_hydra(line: str):
    def runs(*words):
        try:
            return [(run.words, run.plain(), run.sweep, run.choices, run.notes) for run in _composed(*words)]
        except ConfigError as error:
            return str(error)

    words = shlex.split(line)
    ours, hydras = runs(*words), runs(*words, "hydra.job.name=mine")
    assert ours == hydras and len(ours) > 1


def test_an_optimizer_has_a_learning_rate_of_its_own_until_one_is_given():
    presets = ["reference", "cosine", "sgd", "adamw", "muon"]
    found = [typed(run) for name in presets for run in _composed(f"optim={name}")]
    assert [one.lr for one in found] == [0.05, 0.05, 0.02, 0.0015, 0.0015]
    assert [one.optim.core_lr for one in found] == ["same", "same", "balanced", "balanced", "balanced"]
    assert [typed(run).lr for run in _composed("-m", "optim=adamw,muon", "lr=0.3")] == [0.3, 0.3]
    assert {typed(one).lr for one in _composed("experiment=quick/trl", "optim=adamw")} == {0.0015}


def test_the_texts_kept_beside_the_results():
    (one,) = _composed("lr=0.1", "method=cp")
    files = one.files()
    assert set(files) == {".hydra/config.yaml", ".hydra/overrides.yaml"}
    assert yaml.safe_load(files[".hydra/overrides.yaml"]) == ["lr=0.1", "method=cp"]
    assert yaml.safe_load(files[".hydra/config.yaml"]) == plain(typed(one))


def test_a_baseline_is_composed_of_its_words_alone():
    found = []
    call_composed(["lr=0.3", "arch=vgg11", "dataset=cifar10"], lambda one: found.append(baseline(["arch=vgg11"])))
    assert (found[0].arch.name, found[0].lr, found[0].dataset.name) == ("vgg11", 0.05, "digits")


def test_words_hold_over_what_was_saved():
    (one,) = _composed("rank=4", "arch.width=0.5")
    config = typed(one.after({"rank": 8, "arch": {"name": "lenet5", "width": 0.25, "hidden": 7}}))
    assert (config.rank, config.arch.name, config.arch.width, config.arch.hidden) == (Size(4), "lenet5", 0.5, 7)


def test_what_another_version_saved_is_told():
    (one,) = _composed()
    with pytest.raises(ConfigError, match=r"^unknown key 'arch.widht' \(did you mean arch.width\?\), known in arch"):
        one.after({"arch": {"widht": 0.25}})
    with pytest.raises(ConfigError, match=r"^arch\.width=wide is not a number$"):
        one.after({"arch": {"width": "wide"}})


@pytest.mark.parametrize("word", ["init_from=${nothing}", "init_from=${method}"])
def test_an_interpolation_that_leads_nowhere_is_told(word):
    with pytest.raises(ConfigError) as told:
        [typed(one) for one in _composed(word)]
    assert "\n" not in str(told.value)


def test_nothing_is_called_where_a_key_is_none():
    found = []
    with pytest.raises(ConfigError, match="unknown key 'rnak'"):
        call_composed(["-m", "method=cp,tt", "+rnak=3"], found.append)
    assert not found


def test_omegaconf_and_hydra_are_seen_by_this_room_alone():
    package = Path(tdcompress.__file__).parent
    seen = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if {"omegaconf", "hydra"} & {name.split(".")[0] for name in names}:
                seen.add(path.relative_to(package).parts[0])
    assert seen == {"config"}


@pytest.mark.parametrize("key", ["init_from", "dataset.root"])
@pytest.mark.parametrize("spelled", ["results/a/seed0", "./results/a/seed0/", "results/../results//a/seed0"])
def test_a_place_has_one_spelling(spelled, key):
    found = []
    call_composed([f"{key}={spelled}"], lambda composed: found.append(attrgetter(key)(typed(composed))))
    assert found == ["results/a/seed0"]


@pytest.mark.parametrize("text", ["2024_01", "3.10", "1e3", "true", "007"])
def test_text_that_looks_like_a_number_stays_what_it_is(text):
    found = []
    call_composed([f"results_dir={text}", f"dataset.label={text}"], lambda composed: found.append(typed(composed)))
    assert (found[0].results_dir, found[0].dataset.label) == (text, text)


def test_a_yaml_file_that_cannot_be_read_is_told_in_a_line(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("format: [tt\n")
    with pytest.raises(ConfigError, match=r"^a yaml file cannot be read: .*mine\.yaml") as error:
        call_composed(["method=mine", f"--config-dir={tmp_path}"], lambda composed: None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [["method.conv=tt"], ["method.linear=tt"], ["method.conv=tt", "method.linear=tt"]])
def test_a_format_that_all_layers_have_is_no_other_one_of_some(words):
    found = []
    for one in ([], words, ["method.conv=cp"]):
        call_composed(["method=tt", *one], lambda composed: found.append(typed(composed)))
    usual, same, other = found
    assert same == usual != other
