"""The README, docs/ and the help page: every command is one, every example runs, every link leads somewhere.

What is cheap runs as written in a folder of its own, a training with epochs=1 too; other trainings are composed only, a
sweep at its first and its last values. In a command RUN is a run's folder, FILE what `tdc compress` wrote, DIR a folder
of images.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
from omegaconf import DictConfig, OmegaConf

import tdcompress
from docs import COMMAND, DOCS, EXPERIMENTS, FOUND, PAGES, ROOT, examples, is_training, spans
from tdcompress import cli
from tdcompress.config.compose import Composed, baseline, call_composed, typed
from tdcompress.config.conf import conf_dir
from tdcompress.config.words import read
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ("epochs=1", "dataset.limit=100", "arch.width=0.25", "device=cpu", "seed=1")
Run = Callable[[list[str]], tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder to work in, with a run, a file of weights, the examples' files and some of the published tables."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.setattr(sys, "argv", ["tdc"])
        cli.main(["train", "method=dense", *TINY])
        (run,) = folder.glob("results/runs/*/*/*/seed1")
        shutil.copytree(run, "RUN")
        cli.main(["compress", f"checkpoint={run}", "rank=2", "out=FILE.pt"])
        Path("FILE.pt").rename("FILE")
        published, place = ROOT / "results" / "published", Path("results", "published")
        place.mkdir(parents=True)
        runs, epochs = (pandas.read_csv(published / f"{name}.csv", dtype=str) for name in ("summary", "metrics"))
        runs[:2].to_csv(place / "summary.csv", index=False)
        epochs[epochs.directory.isin(runs.directory[:2])].to_csv(place / "metrics.csv", index=False)
        for _, name, code in (example for page in DOCS for example in examples(page)):
            if name:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_text(code)
        yield folder


@pytest.fixture
def run(folder, capfd) -> Run:
    """Run a verb: its exit code, and all that it says."""

    def verb(words: list[str]) -> tuple[int, str]:
        code = 0
        try:
            cli.main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, "".join(capfd.readouterr())

    return verb


def check(command: str, run: Run) -> None:
    """Fail unless this is a command."""
    program, *words = shlex.split(command)
    if program == "make":
        assert set(words) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[:2] == ["install", "-e"] and words[2].strip(".[]") in extras
    elif program == "python":
        script(*words)
    elif program.startswith("scripts/"):
        text = (ROOT / program).read_text()
        assert all(f"{word})" in text for word in words)  # a case of the shell's
    elif program == "tdc":
        verb(words, run)
    else:
        assert program in ("cp", "eval")


def script(name: str, *words: str) -> None:
    """Check the arguments of a Python file in scripts/."""
    path = ROOT / name
    flags = [word for word in words if word.startswith("--")]
    assert all(f"\n{flag} " in path.read_text() for flag in flags)  # its docstring lists them
    if path.stem == "bench_peers":
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(path.parent))
            benchmark = runpy.run_path(str(path))["run"]
        with pytest.raises(ConfigError, match="repeats=0"):
            benchmark([*words, "repeats=0"])
    elif path.stem in ("gpu", "reproduce"):
        read(words, runpy.run_path(str(path))["Options"])
    else:
        assert path.is_file() and not any("=" in word for word in words)


def verb(words: list[str], run: Run) -> None:
    """Run a verb where that is cheap, else see that it takes these words."""
    name = words[0]
    if name == "bench":  # words are read in order, so a bad last one is told of only if the others are good
        code, told = run([*words, "repeats=0"])
        assert code == 2 and told.startswith("tdc: repeats=0 ")
    elif name == "export" and "--help" not in words:  # as far as the run
        code, told = run([re.sub("=(RUN|DIR)$", "=nothing", word) for word in words])
        assert code == 2 and ("nothing" in told or " needs onnx" in told), told
    elif name == "best":  # words are read before the runs, of which there is a single one
        code, told = run(words)
        assert code == 0 or told.endswith(" that answer this\n"), told
    elif name == "plot" and len(words) > 1 and "--help" not in words:  # the one without words draws
        code, told = run([*words, "dataset=nothing"])
        assert code == 2 and told.startswith("tdc: no finished runs like that"), told
    else:
        code, told = run(words)
        assert code == 0, told


@pytest.mark.parametrize("command", [command for command in FOUND if not is_training(command)], ids=str)
def test_a_command_of_the_docs_is_one(command, run):
    check(command, run)


def overrides(command: str) -> list[str]:
    """The words behind `train`; of a sweep those of its last run."""
    words = shlex.split(command)
    words = words[words.index("train") + 1 if "train" in words else 1 :]
    flags = {"-m", "--multirun"} & set(words)
    if flags or any(word.startswith("experiment=") for word in words):
        return [_last(word) for word in words if word not in flags]
    return words


def _last(word: str) -> str:
    key, equals, values = word.partition("=")
    if not equals or values.startswith(("[", "{")):
        return word
    *others, last = values.split(",")
    if (conf_dir() / key).is_dir() and not all((conf_dir() / key / f"{name}.yaml").is_file() for name in others):
        raise ConfigError(f"{word} names what there is not")
    return f"{key}={last}"


def failures(trainings: list[str]) -> dict[str, str]:
    """Which of these commands do not compose, and why."""
    failed = {}
    own = [command for command in trainings if re.search(r" --|layers=|target", command)]  # words for the command line

    def compose_others(composed: Composed) -> None:  # within one start of Hydra, which takes as long as they do
        for command in trainings:
            if command not in own:
                try:
                    baseline(overrides(command))
                except ConfigError as error:
                    failed[command] = str(error)

    call_composed([], compose_others)
    for command in own:
        try:
            call_composed([*overrides(command), "hydra.mode=RUN"], typed)
        except ConfigError as error:
            failed[command] = str(error)
    return failed


def test_every_training_of_the_docs_composes(folder):
    trainings = [command for command in FOUND if is_training(command) and command not in EXPERIMENTS]
    assert len(trainings) > 20 and failures(trainings) == {}


MISTAKES = (
    "tdc show method=ht arch=vgg16", "tdc train epochs=1 rnak=8", "tdc bench step speed=3", "tdc runs speed=3",
    "tdc plot speed=3", "tdc export run=RUN f=1", "make nothing", "python scripts/nothing.py",
    "python scripts/stress.py --nothing", "python scripts/bench_peers.py speed=3", "pip install -e '.[nothing]'",
)  # fmt: skip
NO_TRAININGS = ["tdc train rnak=8", "tdc train a.b=3", "tdc train -m method=tt,tq", "tdc train experiment=trl_quick"]


@pytest.mark.parametrize("command", MISTAKES)
def test_what_is_no_command_is_found(command, run):
    with pytest.raises((AssertionError, ConfigError, OSError)):
        check(command, run)


def test_what_is_no_training_is_found():
    assert sorted(failures(NO_TRAININGS)) == sorted(NO_TRAININGS)


def test_every_experiment_has_its_line():
    page = (ROOT / "docs" / "experiments.md").read_text()
    assert [command for command in sorted(EXPERIMENTS) if f"`{command}`" not in page] == []


def test_every_key_in_a_code_span_is_one():
    plain: list[DictConfig] = []
    call_composed([], lambda composed: plain.append(composed.raw))
    mistakes = []
    found = [(page.name, span) for page in PAGES for span in spans(page.read_text())]
    for name, span in [(name, span) for name, span in found if not COMMAND.match(span)]:
        for key, value in re.findall(r"(?:^| )'?([a-z_]+(?:\.[a-z_]+)*)=(\S*)", span):
            if value.startswith(('"', '["')):  # of a call in Python
                continue
            group = conf_dir() / key
            known = group.is_dir() or OmegaConf.select(plain[0], key, default=plain) is not plain
            values = value.split(",") if group.is_dir() and re.match("[a-z]", value) and "NAME" not in value else []
            if not known or not all((group / f"{one}.yaml").is_file() for one in values):
                mistakes.append((name, span))
    assert mistakes == []


@pytest.mark.parametrize("page", [page for page in DOCS if examples(page)], ids=lambda page: page.name)
def test_the_examples_run(page, folder):
    before = dict(FORMATS)
    try:
        for language, _, code in examples(page):
            if language == "python":
                exec(compile(code, str(page), "exec"), {"__name__": "example"})
    finally:
        FORMATS.clear()
        FORMATS.update(before)


def test_the_cores_in_the_table_are_those_of_the_formats():
    text = (ROOT / "docs" / "formats_and_layouts.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \| `(\w+\(\S+\) .*)` \|$", text, re.MULTILINE)
    factorised = [(name, format.layouts) for name, format in FORMATS.items() if format.factorised]
    assert {row[:2] for row in rows} == {(name, layout) for name, layouts in factorised for layout in layouts}
    for format, layout, cores in rows:
        settings: dict[str, Any] = {"rank": 2, "layout": layout, "factors": 2, "init": "variance"}
        graph = tdcompress.conv2d(format, 8, 12, 3, **settings).graph
        assert cores == " ".join(f"{core.name}({','.join(core.indices)})" for core in graph.cores)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if not target.startswith("http"):
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}, target


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80
