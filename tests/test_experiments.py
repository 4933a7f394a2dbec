"""The experiments: what each of them composes to, and that a quick one says only what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tdcompress import cli
from tdcompress.config.conf import conf_dir
from tdcompress.tensor.formats import FORMATS

FOLDER = conf_dir() / "experiment"
EXPERIMENTS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
PARENTS = {
    "quick/cifar10_comparison": "cifar10_comparison",
    "quick/core_lr": "core_lr",
    "quick/lr_sensitivity": "lr_sensitivity",
    "quick/mnist_comparison": "mnist_comparison",
    "quick/sequence": "sequence",
    "quick/trl": "trl",
}
# Of each experiment: the keys of "config" have other values than in `tdc train`, those of "absent" are not there, and
# "sweep" is what runs over several values, in order. A parameter swept over one value is part of "config".
RECORDED = json.loads((Path(__file__).resolve().parent / "data" / "experiments.json").read_text())

PLAIN: dict[str, Any] = {}  # `tdc train` alone, composed once


@pytest.fixture
def composed(capsys, monkeypatch):
    """What `tdc train` composes from some words, as it prints it: keys to values, and Hydra's own part."""
    monkeypatch.setattr("sys.argv", ["tdc"])

    def compose(*words: str) -> tuple[dict[str, Any], dict[str, Any]]:
        cli.main(["train", *words, "--cfg", "all"])
        config = yaml.safe_load(capsys.readouterr().out)
        hydra = config.pop("hydra")
        return flat(config), hydra

    return compose


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    keys: dict[str, Any] = {}
    for key, value in values.items():
        keys |= flat(value, f"{before}{key}.") if isinstance(value, dict) and value else {f"{before}{key}": value}
    return keys


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def swept(hydra: dict[str, Any]) -> dict[str, list[str]]:
    return {key: str(values).split(",") for key, values in hydra["sweeper"]["params"].items()}


def test_the_record_is_of_these_experiments():
    assert sorted(RECORDED) == EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_to_what_is_recorded(composed, name):
    plain = PLAIN or composed()[0]
    PLAIN.update(plain)
    config, hydra = composed(f"experiment={name}")
    sweep = swept(hydra)
    config |= {key: yaml.safe_load(values[0]) for key, values in sweep.items() if len(values) == 1}
    recorded = RECORDED[name]
    assert {key: value for key, value in config.items() if plain.get(key, config) != value} == recorded["config"]
    assert [key for key in plain if key not in config] == recorded["absent"]
    assert [item for item in sweep.items() if len(item[1]) > 1] == list(recorded["sweep"].items())

    assert hydra["mode"] == "MULTIRUN"  # one command, one figure: it compares methods
    compared = sweep["method"]
    assert 1 < len(compared) == len(set(compared)) and set(compared) <= set(FORMATS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_the_command_that_runs_it(name):  # at once after the line that Hydra wants first
    first, second = (FOLDER / f"{name}.yaml").read_text().splitlines()[:2]
    assert (first, second) == ("# @package _global_", f"# tdc train experiment={name}")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_inherits_on_one_dataset_and_repeats_nothing(name):
    own = read(name)
    inherited = [line for line in own["defaults"] if isinstance(line, str)]
    assert inherited == ([f"/experiment/{PARENTS[name]}"] if name in PARENTS else [])
    datasets = [line["override /dataset"] for line in own["defaults"] if "override /dataset" in line]
    assert len(datasets) == (0 if inherited else 1)  # one that inherits has its parent's
    if inherited:
        parent = read(PARENTS[name])
        said, before = flat(own), flat(parent)
        assert not [key for key in said if key != "defaults" and said[key] == before.get(key)]
        assert not [line for line in own["defaults"] if line in parent["defaults"]]


def test_an_unknown_experiment_is_answered_with_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "experiment=nothing"])
    told = capsys.readouterr().err
    assert told.startswith("tdc: unknown experiment 'nothing', known: ")
    assert sorted(told.strip().rpartition("known: ")[2].split(", ")) == EXPERIMENTS


def test_tab_completion_offers_every_experiment(capfd, monkeypatch):
    line = "tdc train experiment="
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    cli.main(["-sc", "query=bash"])
    assert sorted(capfd.readouterr().out.split()) == [f"experiment={name}" for name in EXPERIMENTS]


@pytest.mark.parametrize(("line", "offered"), [("tdc ", {*cli.VERBS}), ("tdc re", {"report"}), ("tdc runs me", set())])
def test_tab_completion_of_verbs_and_of_those_that_compose_nothing(line, offered, capfd, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    cli.main(["-sc", "query=bash"])
    assert {*capfd.readouterr().out.split()} == offered
