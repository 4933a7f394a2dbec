"""What a source file says of a verb and its keys, read off its syntax tree: for a page of help nothing is imported."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[2]
_FIELD = re.compile(r"``(\w+)``: ")  # a field in the docstring of its class


@dataclass(frozen=True)
class Key:
    """A key of a verb: its default, ``...`` where that is computed, what it means, and the names that it takes if these
    are fixed."""

    name: str
    default: Any
    said: str = ""
    known: tuple[str, ...] = ()


@cache
def source(path: Path) -> Source:
    """The file at ``path``, read once."""
    return Source(path)


class Source:
    """One file of the package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text()
        self.tree = ast.parse(text)
        self.lines = text.splitlines()
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self.comments = {token.start[0]: token.string[1:].strip() for token in tokens if token.type == tokenize.COMMENT}

    @property
    def title(self) -> str:
        """What the file is for, in a line without its name and its full stop: the first of its docstring."""
        first = (ast.get_docstring(self.tree) or "").splitlines()[0]
        return first.partition(": ")[2].removesuffix(".").replace("``", "")

    @property
    def examples(self) -> list[tuple[str, str]]:
        """The commands in the file's docstring, each with what is said behind it."""
        found = re.findall(r"^ *(tdc .*)$", ast.get_docstring(self.tree) or "", re.MULTILINE)
        return [(command.strip(), said.strip()) for command, _, said in (line.partition(" # ") for line in found)]

    def read_into(self) -> Iterator[tuple[Source, ast.ClassDef, bool]]:
        """The dataclasses that the file reads words into: where each is, and whether filters of runs come with it."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "read":
                kind = node.args[1]
                filtered = isinstance(kind, ast.Call) and ast.unparse(kind.func) == "with_filters"
                name = ast.unparse(kind.args[0] if isinstance(kind, ast.Call) else kind)
                yield *self.dataclass(name), filtered

    def dataclass(self, name: str) -> tuple[Source, ast.ClassDef]:
        """The class of this name, and the file that it is in."""
        place, found = self.definition(name)
        assert isinstance(found, ast.ClassDef)
        return place, found

    def definition(self, wanted: str) -> tuple[Source, ast.stmt]:
        """What a name stands for: the statement that makes it, and its file: this one, or one it is imported from."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == wanted:
                return self, node
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if wanted in map(ast.unparse, targets):
                    return self, node
            if isinstance(node, ast.ImportFrom) and node.level and wanted in [alias.name for alias in node.names]:
                folder = self.path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                file = folder.with_suffix(".py")
                return source(file if file.exists() else folder / "__init__.py").definition(wanted)
        raise LookupError(f"{self.path} has no {wanted}")

    def keys(self, kind: ast.ClassDef) -> list[Key]:
        """The fields of a dataclass, those of its bases first; one that is said again has its place."""
        found: dict[str, Key] = {}
        for base in kind.bases:
            place, inherited = self.dataclass(ast.unparse(base))
            found |= {key.name: key for key in place.keys(inherited)}
        said = _fields(ast.get_docstring(kind) or "")
        for node in kind.body:
            if isinstance(node, ast.AnnAssign):
                name = ast.unparse(node.target)
                default, known = self._default(node.value)
                earlier = found[name].said if name in found else ""
                found[name] = Key(name, default, said.get(name) or self.comment(node) or earlier, known)
        return list(found.values())

    def names(self, node: ast.expr) -> tuple[str, ...]:
        """The names in a list, or of the keys of a table; none where they are computed."""
        if isinstance(node, ast.Name):
            place, made = self.definition(node.id)
            value = getattr(made, "value", None)
            return place.names(value) if value is not None else ()
        items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        return tuple(str(item.value) for item in items if isinstance(item, ast.Constant))

    def _default(self, value: ast.expr | None) -> tuple[Any, tuple[str, ...]]:
        """Of a field with this right-hand side: its default, and the names that it takes."""
        if isinstance(value, ast.Call) and ast.unparse(value.func) in ("choice", "from_zero"):
            default, *known = value.args
            return self._default(default)[0], self.names(known[0]) if known else ()
        if isinstance(value, ast.Name):
            place, made = self.definition(value.id)
            return place._default(getattr(made, "value", None))
        try:
            return ast.literal_eval(value) if value is not None else None, ()
        except ValueError:
            return ..., ()

    def comment(self, node: ast.AnnAssign) -> str:
        """The comment behind a field, or the lines of comment right above it."""
        if node.end_lineno in self.comments:
            return self.comments[node.end_lineno]
        above, line = [], node.lineno - 1
        while line in self.comments and self.lines[line - 1].lstrip().startswith("#"):
            above.append(self.comments[line])
            line -= 1
        return " ".join(reversed(above))


def _fields(docstring: str) -> dict[str, str]:
    """What a docstring says of each field: ``name``: up to the next one or the end of the paragraph."""
    found = {}
    for paragraph in docstring.split("\n\n"):
        _, *parts = _FIELD.split(" ".join(paragraph.split()))
        for name, said in zip(parts[::2], parts[1::2], strict=True):
            found[name] = said.strip().rstrip(";.").replace("``", "")
    return found
