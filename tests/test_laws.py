"""The laws of the house that import-linter's contracts in pyproject.toml leave: read off the syntax trees."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tdcompress.tensor.formats import FORMATS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tdcompress"
LINES, FILES = 300, 13

# May be missing where nothing asks for them: imported where they are used, once it is known that they are there.
OPTIONAL = {"tensorboard", "torch.utils.tensorboard", "submitit", "av", "onnx", "onnxscript", "onnxruntime"}

# Where a module is imported by a name that is data: the public names, the files of a folder, a configuration's target,
# a verb of the command line.
BY_NAME = {
    "__init__.py",
    "tensor/__init__.py",
    "tensor/formats/__init__.py",
    "config/targets.py",
    "cli/__init__.py",
    "cli/bench.py",
}

# "dense" is an English word, too: the name of a plan, and the key of the dense twin among networks and times.
DENSE = {
    "tensor/contraction/search.py",
    "compression/export/fold.py",
    "compression/survey/counts.py",
    "compression/export/files.py",
    "cli/compress.py",
    "cli/export.py",
    "bench/infer.py",
    "bench/layers.py",
    "bench/step.py",
}


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every file of the package, by its path in the package."""
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imported(node: ast.AST, file: str) -> Iterator[str]:
    """The modules that one statement imports, by their absolute names; ``from a import b`` gives ``a`` alone."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        here = ("tdcompress", *Path(file).parts[:-1])
        beyond = here[: len(here) - node.level + 1] if node.level else ()
        yield ".".join((*beyond, *([node.module] if node.module else [])))


def within(module: str, packages: set[str]) -> bool:
    """Whether a module is one of these packages or lies inside of one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Every function of a file, inner ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_what_is_read_is_the_whole_package():
    assert {"__init__.py", "tensor/graph.py", "cli/__init__.py", "train/launch/job.py"} <= set(trees())
    assert list(imported(ast.parse("from ..graph import Core").body[0], "tensor/formats/cp.py")) == [
        "tdcompress.tensor.graph"
    ]
    assert list(imported(ast.parse("from . import register").body[0], "tensor/formats/cp.py")) == [
        "tdcompress.tensor.formats"
    ]


def test_tensor_needs_torch_alone():
    allowed = {"torch", "tdcompress.tensor", *sys.stdlib_module_names}
    broken = {
        f"{file}:{node.lineno} imports {module}"
        for file, tree in trees().items()
        if file.startswith("tensor/")
        for node in ast.walk(tree)
        for module in imported(node, file)
        if not within(module, allowed)
    }
    assert not broken


def test_imports_stand_at_the_top():
    broken = {
        f"{file}:{node.lineno} imports {module}"
        for file, tree in trees().items()
        if not file.startswith("cli/")
        for function in functions(tree)
        for node in ast.walk(function)
        for module in imported(node, file)
        if not within(module, OPTIONAL)
    }
    assert not broken, "\n".join(sorted(broken))


def test_optional_packages_are_never_imported_at_the_top():
    broken = {
        f"{file}:{node.lineno} imports {module}"
        for file, tree in trees().items()
        for node in tree.body
        for module in imported(node, file)
        if within(module, OPTIONAL)
    }
    assert not broken


def test_modules_are_imported_by_name_in_few_places():
    broken = {
        f"{file}:{node.lineno}"
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in ("import_module", "__import__")
        and file not in BY_NAME
    }
    assert not broken


def test_what_is_imported_by_name_obeys_the_order_of_the_rooms():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")  # the highest first
    assert set(rooms) == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    named = [
        (file, node.lineno, node.value.split(".")[1])
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(r"tdcompress(\.\w+)+", node.value)
    ]
    assert {"data", "train"} <= {room for _, _, room in named}  # what loads a data set, the process of a run
    broken = {
        f"{file}:{line} names {room}"
        for file, line, room in named
        if "/" in file and rooms.index(room) < rooms.index(file.split("/")[0])
    }
    assert not broken


def test_only_config_and_the_command_line_see_omegaconf():
    broken = {
        f"{file}:{node.lineno} imports {module}"
        for file, tree in trees().items()
        if not file.startswith(("config/", "cli/"))
        for node in ast.walk(tree)
        for module in imported(node, file)
        if within(module, {"omegaconf", "hydra"})
    }
    assert not broken


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_formats_name_stands_in_its_own_file(name: str):
    allowed = {f"tensor/formats/{name}.py", *(DENSE if not FORMATS[name].factorised else set())}
    found = {
        file: node.lineno
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == name
    }
    assert f"tensor/formats/{name}.py" in found
    broken = {f"{file}:{line}" for file, line in found.items() if file not in allowed}
    assert not broken, "\n".join(sorted(broken))


def test_every_exception_is_still_needed():
    for file in DENSE:
        assert '"dense"' in (PACKAGE / file).read_text(), file
    for file in BY_NAME:
        assert "import_module" in (PACKAGE / file).read_text(), file


def test_no_file_is_long():
    paths = [path for top in ("tdcompress", "scripts", "tests") for path in (ROOT / top).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert not {name: count for name, count in lines.items() if count > LINES}


def test_no_folder_is_full():
    folders = [path for top in ("tdcompress", "scripts", "tests") for path in (ROOT / top, *(ROOT / top).rglob("*"))]
    counts = {
        str(folder.relative_to(ROOT)): sum(path.is_file() and path.suffix != ".pyc" for path in folder.iterdir())
        for folder in folders
        if folder.is_dir() and folder.name != "__pycache__"
    }
    assert not {name: count for name, count in counts.items() if count > FILES}
