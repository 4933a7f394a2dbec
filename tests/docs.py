"""What the README, docs/ and the help page show: commands, code spans and examples.

Commands are lines of code blocks and `code spans` that begin with a program's name.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tdcompress import cli
from tdcompress.cli.help.page import overview, verb_file
from tdcompress.config.conf import conf_dir

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLISHED = ROOT / "results" / "published"
PAGES = [*DOCS, ROOT / "CHANGELOG.md", PUBLISHED / "README.md"]
COMMAND = re.compile(r"(tdc|make|python|torchrun|pip install|cp|eval) |scripts/\w+\.sh")


def blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a page, fenced and indented: language and text."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", fence.sub("", text), re.MULTILINE)
    return [*(match.group(1, 2) for match in fence.finditer(text)), *(("", code) for code in indented)]


def spans(text: str) -> list[str]:
    """The `code spans` outside of code blocks, each as one line."""
    text = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*\n", "", text, flags=re.MULTILINE)
    return [" ".join(span.split()).replace(r"\|", "|") for span in re.findall(r"`([^`]+)`", text)]


def commands(text: str) -> list[str]:
    """What is to be typed, without what is said behind it; a span that only names a verb is none."""
    code = [line for language, code in blocks(text) if not language for line in code.splitlines()]
    lines = [re.sub(r"\s+#.*$", "", line).strip() for line in code]
    named = [span for span in spans(text) if span.removeprefix("tdc ") not in cli.VERBS]
    return [line for line in [*lines, *named] if COMMAND.match(line)]


def helped() -> list[str]:
    """The commands of the pages of help."""
    examples = [command for verb in cli.VERBS for command, _ in verb_file(verb).examples]
    return [*examples, *re.findall(r"(?<=`)tdc [^`]+(?=`)", overview(cli.VERBS))]


def examples(page: Path) -> list[tuple[str, str, str]]:
    """The Python and yaml blocks of a page: language, the name of the file that it is, if it says so, and text."""
    found = [(language, code) for language, code in blocks(page.read_text()) if language in ("python", "yaml")]
    names = [re.search(r"^# (\S+\.\w+)$", code, re.MULTILINE) for _, code in found]
    return [(language, name[1] if name else "", code) for (language, code), name in zip(found, names, strict=True)]


EXPERIMENTS = {
    f"tdc train experiment={path.relative_to(conf_dir() / 'experiment').with_suffix('').as_posix()}"
    for path in (conf_dir() / "experiment").rglob("*.yaml")
}  # tests/test_experiments.py composes them
FOUND = [*dict.fromkeys([*helped(), *(command for page in PAGES for command in commands(page.read_text()))])]


def is_training(command: str) -> bool:
    """Whether a command would train for long."""
    words = shlex.split(command)
    trains = words[:2] == ["tdc", "train"] or words[0] in ("torchrun", "scripts/pretrained.sh")
    return trains and not {"--help", "--cfg", "epochs=1"} & set(words)
