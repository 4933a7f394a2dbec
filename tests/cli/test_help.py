"""The pages of help: what they show is what the verbs take, and no page waits for torch."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from tdcompress import cli
from tdcompress.cli.bench import BENCHMARKS
from tdcompress.cli.help.page import overview, own_keys, page, texts, verb_file
from tdcompress.cli.help.source import PACKAGE, Source, source
from tdcompress.config.command import GROUPS
from tdcompress.config.compose import defaults
from tdcompress.config.conf import choices, said
from tdcompress.results.version import version

COMPUTED = {("loop", "method")}  # defaults that no page can show
KEPT = ("delete", "move", "diff")
READERS = [
    source(PACKAGE / f"{place}.py")
    for place in (
        *(f"cli/{verb}" for verb in cli.VERBS),
        *(f"bench/{name}" for name in BENCHMARKS),
        *(f"cli/kept/{word}" for word in KEPT),
    )
]
PAGES = [
    [],
    ["--help"],
    ["help", "plot"],
    ["--version"],
    ["bench", "step", "-h"],
    *([verb, "-h"] for verb in cli.VERBS),
]


def test_no_page_waits_for_torch():
    code = (
        f"import sys; from tdcompress.cli import main; [main(words) for words in {PAGES!r}]; "
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_first_page_names_every_verb():
    assert all(f"  tdc {verb}" in overview(cli.VERBS) for verb in cli.VERBS)


def test_the_version(tdc):
    assert tdc("--version") == (0, f"tdcompress {version()}\n", "")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verbs_page_has_two_examples(tdc, tmp_path, verb):
    assert len(verb_file(verb).examples) >= 2
    code, out, err = tdc(f"{verb} rank=4 --help")
    assert (code, err) == (0, "") and out == page(verb) and out.count(f"  tdc {verb}") >= 2
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("word", KEPT)
def test_what_is_done_with_runs_has_a_page(word):
    text = page("runs", [word])
    assert text.startswith(f"tdc runs {word}: ") and text.count(f"  tdc runs {word} ") >= 1
    assert {"delete": "yes=false", "move": "to=", "diff": "format=png"}[word] in text


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmarks_page_has_two_examples_and_its_keys(benchmark):
    text = page("bench", [benchmark])
    assert text.count(f"  tdc bench {benchmark} ") == 2 and "  repeats=" in text and "``" not in text


@pytest.mark.parametrize("file", READERS, ids=lambda file: f"{file.path.parent.name}/{file.path.stem}")
def test_the_keys_of_a_page_are_those_that_are_read(file):
    for place, kind, _ in file.read_into():
        module = ".".join(place.path.relative_to(PACKAGE.parent).with_suffix("").parts)
        real = {one.name: one for one in fields(getattr(importlib.import_module(module), kind.name))}
        found = {key.name: key for key in place.keys(kind)}
        assert list(found) == list(real)
        for name, key in found.items():
            if (file.path.stem, name) not in COMPUTED:
                assert key.default == real[name].default is not MISSING
            assert key.known in ((), real[name].metadata.get("names", ()))
            assert key.said or any(path.rpartition(".")[2] == name for path in texts()), name


@pytest.mark.parametrize(("file", "key"), COMPUTED)
def test_a_computed_default_is_not_shown(file, key):
    (found,) = [one for one in own_keys(source(PACKAGE / f"bench/{file}.py")) if one.name == key]
    assert found.default is ...


def test_the_page_of_train_has_every_choice_and_every_key_with_its_value(tdc):
    code, out, err = tdc("train --help")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    for group in (*GROUPS, "experiment"):
        for name, line in choices(group).items():
            assert line and f" {group}={name} {' '.join(line.split())}" in words
    for key, value in flat(defaults().plain()):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        assert texts()[key] and (isinstance(value, dict | list) or f" {key}={shown} " in words), key


def flat(values, folder=""):
    for key, value in values.items():
        if folder == "" and key in GROUPS:
            yield from flat(value, f"{key}.")
        else:
            yield f"{folder}{key}", value


FILE = """
SIZES = ("small", "large")


class Place:
    '''Where. ``folder``: above
    all.'''

    folder: str = "here"


class Options(Place):
    '''``name``: of ``it``; ``size``: how large.

    No field: ``other``.
    '''

    name: str = ""
    size: str = choice("small", SIZES)
    count: int | None = None  # how many
    # two lines
    # above it
    deep: bool = not DEEP
    folder: str = "there"


read(words, Options)
"""


def test_what_a_file_says_of_its_fields(tmp_path: Path):
    (tmp_path / "options.py").write_text(FILE)
    (found,) = [place.keys(kind) for place, kind, _ in Source(tmp_path / "options.py").read_into()]
    assert [(key.name, key.default, key.said, key.known) for key in found] == [
        ("folder", "there", "above all", ()),
        ("name", "", "of it", ()),
        ("size", "small", "how large", ("small", "large")),
        ("count", None, "how many", ()),
        ("deep", ..., "two lines above it", ()),
    ]


def test_what_a_yaml_file_says_of_itself(tmp_path):
    comments = ("@package _global_", "tdc train", "As by Li et al. 2020, and", "more. Not this.")
    (tmp_path / "one.yaml").write_text("".join(f"# {line}\n" for line in comments) + "a: 3  # nor this\n")
    assert said(tmp_path / "one.yaml") == "As by Li et al. 2020, and more"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("trian", "unknown verb 'trian' (did you mean train?), known: train,"),
        ("method=tt -m", "'method=tt' stands in the place of a verb: did you mean tdc train method=tt?"),
        ("--rank=4", "did you mean tdc train --rank=4?"),
    ],
)
def test_what_is_no_verb(tdc, line, answer):
    code, out, err = tdc(line)
    assert (code, out) == (2, "") and re.fullmatch(r"tdc: .*\n", err) and answer in err
