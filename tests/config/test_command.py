"""The words of a command before anything is composed of them, and what is said where that fails."""

from __future__ import annotations

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tdcompress.config.command import FLAGS, Command, Keys, in_quotes, parsed, unknown
from tdcompress.config.compose import baseline, call_composed
from tdcompress.config.values import said
from tdcompress.tensor.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdc"])


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], Command()),
        (["method=tt,tucker", "-m", "rank=6x", "epochs=2"], Command(("method=tt,tucker", "rank=6x", "epochs=2"), True)),
        (["rank=4", "--multirun"], Command(("rank=4",), True)),
        (["rank=4", "--cfg", "job", "lr=1"], Command(("rank=4", "lr=1"), shown="job")),
        (["--cfg=all", "-p", "method", "--resolve"], Command(shown="all", part="method", resolve=True)),
        (["lr=1", "-cd", ".", "seed=1"], Command(("lr=1", "seed=1"), own=".")),
        (["experiment=null", "rank=4", "~experiment"], Command(("rank=4",))),
        (["experiment=precision", "rank=4", "experiment=null", "lr=1"], Command(("rank=4", "lr=1"))),
        (["results_dir=1e3"], Command(("results_dir='1e3'",))),
        (["-m", "results_dir=2024_01,'a, 1',007,1e3"], Command(("results_dir='2024_01','a, 1',007,'1e3'",), True)),
        (["dataset.label=choice(1e3)"], Command(("dataset.label='1e3'",))),
        (["-m", "results_dir=sort(1e3,2)"], Command(("results_dir=sort(1e3,2)",), True)),
        (["-m", "dataset.label=choice(3.10, 3.1)"], Command(("dataset.label='3.10','3.1'",), True)),
        (["lr=1", "dataset.root='/a,b=c'"], Command(("lr=1", "dataset.root='/a,b=c'"))),
        (["~optim.optimizer.momentum"], Command(("~optim.optimizer.momentum",))),
    ],
)  # fmt: skip
def test_flags_stand_anywhere(words, command):
    assert parsed(words) == command


def test_flags_come_first_for_hydra():
    words = ["arch.target.depth=3", "-m", "rank=4,8", "--config-dir", "."]
    assert parsed(words).for_hydra() == ["--multirun", "--config-dir=.", "++arch.target.depth=3", "rank=4,8"]


BAD = {
    "--rank=4": "unknown flag '--rank': keys have no dashes, rank=4",
    "--method": "unknown flag '--method': keys have no dashes, method=..",
    "--multi": f"(did you mean --multirun?), known: {', '.join(sum((flag.names for flag in FLAGS.values()), ()))}",
    "-x": "unknown flag '-x', known: -m,",
    "-m=3": "-m takes no value",
    "--cfg": "--cfg needs a value, for example --cfg job",
    "--cfg=nothing": "unknown --cfg 'nothing', known: job, hydra, all",
    "--resolve": "--resolve says how --cfg shows the configuration: use it with --cfg job",
    "--package=method": "--package says how --cfg shows",
    "--config-dir=nowhere": "--config-dir=nowhere: there is no such folder",
    "rank": "'rank' is not of the form key=value",
    "": "'' is not of the form key=value",
    "rank==4": "'rank==4' is not of the form key=value: one equals sign",
    "rank =4": "'rank =4' is not of the form key=value: one equals sign, and no blanks around it",
    "lr=": "lr has no value",
    "method=": "method has no value",
    "dataset.root=/a=b": "in quotes it is taken as it stands: \"dataset.root='/a=b'\"",
    "dataset.root=/a(b)": "\"dataset.root='/a(b)'\"",
    "rank=[4,8": "rank=[4,8: its brackets [ ] are not in pairs",
    "optim={clip: 3": "its brackets { } are not in pairs",
    "dataset.root='abc": "dataset.root='abc: its quotes are not in pairs",
    "lr=1,,2": "lr=1,,2: there is nothing between two of its commas",
    "lr=interval(1,2)": "has no end of values: use range(0,1,0.1), or values between commas",
    "seed=range(3,1)": "seed=range(3,1) has no values: range(0,3) is 0,1,2,",
    "seed=range(0,1,0)": "seed=range(0,1,0) has no values",
    "lr=range(0,1,0.0)": "lr=range(0,1,0.0) has no values",
    "seed=range(0,inf)": "seed=range(0,inf) has no end of values",
    "seed=range(0,9,nan)": "seed=range(0,9,nan) has no end of values",
    "lr=range(0,1,1e-30)": "lr=range(0,1,1e-30) has more than 100,000 values",
    "seed=range(1,3),5": "seed=range(1,3),5: range, glob and choice stand alone, for all values of a key",
    "method=glob(t*),cp": "method=glob(t*),cp: range, glob and choice stand alone",
    "rank=[choice(1,2)]": "rank=[choice(1,2)]: range, glob and choice stand alone",
    "method.layers={fc1:choice(1,2)}": "range, glob and choice stand alone",
    "method=1": "unknown method '1', known: btt,",
    "method=cp,true": "unknown method 'true', known: btt,",
    "experiment=1": "unknown experiment '1', known: ",
    "method@x=glob(t*)": "'method@x=glob(t*)': method has its own place, method=glob(t*)",
    "launcher=basic,local": "launcher=basic,local: a sweep has one launcher",
    "method=glob(x*)": "method=glob(x*): there is none such, known: btt,",
    "rank=glob(*)": "rank=glob(*): a glob stands for files, and rank has none: list its values between commas",
    "method:x=3": "unknown key 'method:x' (did you mean method?)",
    "dataset=null": "dataset=null: a run needs one, known: cifar10,",
    "method=tt,null": "method=null: a run needs one, known: btt,",
    "experiment=null,trl": "an experiment may be a sweep of its own, and a sweep has one: a command for each",
    "experiment=sequence,trl": "an experiment may be a sweep of its own, and a sweep has one: a command for each",
    "~method": "'~method': a run needs one, known: btt,",
    "~lr": "'~lr': a key is not removed, it is given a value, lr=..",
    "method@arch=cp": "'method@arch=cp': method has its own place, method=cp",
}  # fmt: skip


@pytest.mark.parametrize("word", BAD)
def test_a_word_that_cannot_be_is_told_in_a_line(word):
    with pytest.raises(ConfigError) as told:
        parsed(["-m", word] if "null" in word else [word])
    assert BAD[word] in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["/a=b", "/a,b", "/a(b)", "it's, =", "[x"])
def test_what_is_said_of_quotes_is_so(text):
    word = in_quotes("dataset.root", text).strip('"')
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.value() == text and not override.is_sweep_override()


NEAREST = {
    "layout": "unknown key 'layout' (did you mean method.layout?), known: dataset,",
    "method.rank": "unknown key 'method.rank' (did you mean rank?), known in method:",
    "optim.lr": "unknown key 'optim.lr' (did you mean lr?), known in optim:",
    "momentum": "unknown key 'momentum' (did you mean optim.optimizer.momentum?)",
    "frames": "(did you mean dataset.frames or arch.frames?)",
    "lyout": "(did you mean method.layout?)",
    "lrr": "(did you mean lr?)",
    "dataset.qqq": "unknown key 'dataset.qqq', known in dataset: name,",
}


@pytest.mark.parametrize("key", NEAREST)
def test_the_nearest_key_in_whichever_group(key):
    assert NEAREST[key] in unknown(key)


VALUES = {
    "lr": ("abc", "lr=abc is not a number"),
    "seed": (1.5, "seed=1.5 is not a whole number"),
    "compile": ("maybe", "compile=maybe is not true or false"),
    "epochs": (None, "epochs=null: it needs a value"),
    "arch.keep": ({"a": 1}, "arch.keep is not a list, such as arch.keep=[first,second]"),
    "method.in_modes": (3, "method.in_modes is not a list"),
    "optim.optimizer": (3, "optim.optimizer is not like optim.optimizer={name: value}"),
    "hydra.mode": ("FOO", "unknown hydra.mode 'FOO', known: RUN, MULTIRUN"),
    "init_from": ("${nope}", "init_from: ${nope} stands for no key"),
    "device": ("${oc.env:NOPE}", "device: the environment has no NOPE"),
    "precision": ("${foo:x}", "precision: there is no ${foo:..}"),
    "cut": ("${cut}", "cut stands for itself"),
}


@pytest.mark.parametrize("key", VALUES)
def test_what_omegaconf_says_of_a_value_is_said_in_words_of_ours(key):
    value, answer = VALUES[key]
    with pytest.raises(OmegaConfBaseException) as told:
        merge(key, value)
    assert said(key, str(told.value)).startswith(answer)


def merge(key, value):
    group, dot, name = key.rpartition(".")
    values = {group: {name: value}} if dot else {name: value}
    OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(Keys), values), resolve=True)


COMPOSED = {
    "lr=1e-3,1e-2": "lr=1e-3,1e-2 has several values: did you mean a sweep, with -m?",
    "dataset.root=/a,b": "did you mean a sweep, with -m? As one value: \"dataset.root='/a,b'\"",
    "method.rank=4": "unknown key 'method.rank' (did you mean rank?), known in method:",
    "method=lenet": "unknown method 'lenet' (did you mean arch=lenet?), known: btt,",
    "lr=abc": "lr=abc is not a number",
    "arch.keep={a: 1}": "arch.keep={a: 1} is not a list, such as arch.keep=[first,second]",
    "+rank=4": "'rank' is there already: rank=.. without the +",
    "+dataset=mnist": "'dataset' is there already: dataset=.. without the +",
    "foo@bar=3": "unknown key 'foo'",
    "hydra/launcher=joblib": "unknown hydra/launcher 'joblib', known: basic",
}


def test_what_hydra_says_is_said_in_a_line_of_ours(capfd):
    answers: dict[str, str] = {}

    def ask(composed):
        for word in COMPOSED:
            with pytest.raises(ConfigError) as told:
                baseline([word])
            answers[word] = str(told.value)

    call_composed([], ask)
    assert {word: text for word, text in answers.items() if COMPOSED[word] not in text or "\n" in text} == {}
    with pytest.raises(ConfigError, match=r"^lr: .{nope} stands for no key$"):
        call_composed(["lr=${nope}"], lambda composed: None)
    assert capfd.readouterr() == ("", "")
