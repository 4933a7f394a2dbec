"""The pages of help: of the command, and of each verb its examples, flags and keys with their defaults."""

from __future__ import annotations

import ast
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .source import PACKAGE, Key, Source, source

Line = tuple[str, str]
"""What can be typed, and what it does."""

COMPOSED = ("train", "compress", "show")
"""Verbs that take every key of a run's configuration."""

_PARTS = {"bench": PACKAGE / "bench", "runs": PACKAGE / "cli" / "kept"}  # folders of what verbs do by a word
_LEFT = 46  # columns for what can be typed, at most


def overview(verbs: Sequence[str]) -> str:
    """The page of ``tdc --help``: a line for each verb."""
    files = [verb_file(verb) for verb in verbs]
    lines = [(example, file.title) for file in files for example, _ in file.examples[:1]]
    title = "tdc trains networks with their weights in a tensor format, and compares the formats."
    more = "`tdc train --help` lists every key; each verb has such a page. `tdc --version` tells which code this is."
    return f"{title}\n\n{_table(lines)}\n\n{more}\n"


def page(verb: str, words: Sequence[str] = ()) -> str:
    """The page of ``tdc VERB --help``; ``words``: those beside it, of which the first may name what the verb does."""
    file = verb_file(verb)
    part = _part(verb, words[0]) if words else None
    name = f"{verb} {words[0]}" if part else verb
    examples = [line for line in file.examples if not part or line[0].startswith(f"tdc {name}")]
    parts = [f"tdc {name}: {(part or file).title}", _table(examples)]
    if verb == "bench" and part is None:
        parts += ["Benchmarks; tdc bench NAME --help lists the keys of one\n" + _table(_benchmarks(file).items())]
    parts += [f"Keys\n{_table(lines)}" for lines in (_own_keys(part or file),) if lines]
    if verb in COMPOSED:
        parts += list(_of_runs()) if verb == "train" else ["and every flag, group and key of tdc train --help"]
    return "\n\n".join(part for part in parts if part) + "\n"


def verb_file(verb: str) -> Source:
    """The file of a verb."""
    return source(PACKAGE / "cli" / f"{verb}.py")


def own_keys(file: Source) -> list[Key]:
    """The keys that a verb reads itself, as its dataclasses say; those that choose among runs are left out."""
    found = {key.name: key for place, kind, _ in file.read_into() for key in place.keys(kind)}
    return list(found.values())


def texts() -> dict[str, str]:
    """What each key of a run means, by its dotted name, and of each group what it is."""
    schema = source(PACKAGE / "config" / "schema.py")
    found: dict[str, str] = {}

    def add(name: str, folder: str) -> None:
        _, kind = schema.dataclass(name)
        fields = {ast.unparse(node.target): node for node in kind.body if isinstance(node, ast.AnnAssign)}
        for key, node in fields.items():
            group = ast.unparse(node.annotation)
            if group.endswith("Config"):
                first = (ast.get_docstring(schema.dataclass(group)[1]) or "").splitlines()[0]
                found[key] = first.partition(". ")[0].removesuffix(".").replace("``", "")
                add(group, f"{key}.")
            else:
                found[folder + key] = schema.comment(node).replace("None", "null")

    add("TrainConfig", "")
    return found


def _part(verb: str, word: str) -> Source | None:
    """The file of what ``tdc VERB WORD`` does, where that is a file of its own, with a function ``run``."""
    path = _PARTS[verb] / f"{word}.py" if verb in _PARTS else None
    if path is None or not path.is_file():
        return None
    runs = [node for node in source(path).tree.body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    return source(path) if runs else None


def _benchmarks(file: Source) -> dict[str, str]:
    _, made = file.definition("BENCHMARKS")
    assert isinstance(made, ast.Assign)
    benchmarks: dict[str, str] = ast.literal_eval(made.value)
    return benchmarks


def _own_keys(file: Source) -> list[Line]:
    of_runs = {key.rpartition(".")[2]: text for key, text in reversed(texts().items())}
    lines = []
    for key in own_keys(file):
        said = key.said or of_runs.get(key.name, "")
        known = "" if all(name in said for name in key.known) else ", ".join(key.known)
        lines.append((_typed(key), "; ".join(filter(None, (said, known)))))
    if any(filtered for _, _, filtered in file.read_into()):
        rows = source(PACKAGE / "results" / "rows.py")
        columns = ", ".join(key.name for key in rows.keys(rows.dataclass("Row")[1]))
        lines.append(("COLUMN=VALUE,..", f"only runs with one of these values in this column: {columns}"))
    return lines


def _of_runs() -> Iterator[str]:
    """The flags, the groups with their choices, and the keys of a run's configuration with the values they have."""
    from ...config.command import FLAGS, GROUPS
    from ...config.compose import defaults
    from ...config.conf import choices

    usual, said = defaults(), texts()
    values = usual.plain()
    flags = [(f"{', '.join(flag.names)} {flag.value}".strip(), flag.said) for flag in FLAGS.values()]
    yield f"Flags, anywhere among the keys\n{_table(flags)}"
    for group in (*GROUPS, "experiment"):
        lines = [(f"{group}={name}", text) for name, text in choices(group).items()]
        chosen = usual.choices.get(group)
        yield f"{said.get(group, 'A prepared sweep')}: {group}={chosen or 'null'} unless given\n{_table(lines)}"
    for group in ("", *GROUPS):
        inside = values[group] if group else {key: value for key, value in values.items() if key not in GROUPS}
        keys = {f"{group}.{key}" if group else key: value for key, value in inside.items()}
        lines = [(f"{key}={_value(value)}", said[key]) for key, value in keys.items()]
        yield f"Keys of {group or 'a run'}, as they are unless given\n{_table(lines)}"


def _typed(key: Key) -> str:
    if key.default in (None, ..., "", ()):
        return f"{key.name}="
    return f"{key.name}={','.join(map(str, key.default)) if isinstance(key.default, tuple) else _value(key.default)}"


def _value(value: Any) -> str:
    """A value as a command line takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def _table(lines: Iterable[Line]) -> str:
    """Two columns, the right one wrapped to the terminal's width; what is long on the left has a line to itself."""
    lines = list(lines)
    left = min(max((len(typed) for typed, _ in lines), default=0), _LEFT) + 2
    width = max(shutil.get_terminal_size((110, 24)).columns - left - 2, 40)
    rows = []
    for typed, said in lines:
        first, *rest = textwrap.wrap(said, width, break_on_hyphens=False) or [""]
        apart = len(typed) > left - 2
        rows += [f"  {typed}"] * apart + [f"  {'' if apart else typed:<{left}}{first}".rstrip()]
        rows += [f"  {'':<{left}}{line}" for line in rest]
    return "\n".join(rows)
