"""The ``tdc`` command: one file for each verb, imported when it is called. This one imports nothing heavy."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..results.version import version
from ..tensor.errors import ConfigError
from .help.page import overview, page
from .shared.say import complain

VERBS = ("train", "compress", "show", "runs", "best", "plot", "report", "export", "bench", "doctor")
_HELP = {"-h", "--help"}
_PYTHONS = warnings.formatwarning


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit with its code: 0, 1 if runs of a sweep failed, 2 for bad input, 130 or 143 upon a signal."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (of the processes that torchrun starts, the first one speaks)
    if words[:1] == ["-sc"] or words[:1] == ["--shell-completion"]:
        _, *typed = os.environ.get("COMP_LINE", "").split(" ")
        if len(typed) == 1:
            print(*(verb for verb in VERBS if verb.startswith(typed[0])))
            return
        words = ["train", *words]
    verb, *rest = words or ["help"]
    if verb == "--version":
        print(f"tdcompress {version()}")
        return
    if verb == "help" or verb in _HELP:
        print(page(rest[0]) if rest[:1] and rest[0] in VERBS else overview(VERBS), end="")
        return
    if verb not in VERBS:
        complain(_unknown(verb))
        sys.exit(2)
    warnings.formatwarning = _warning
    try:
        if _HELP & set(rest):
            print(page(verb, rest), end="")
        else:
            importlib.import_module(f".{verb}", __name__).run(rest)
    except ConfigError as error:
        complain(error)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(stop if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(getattr(stop, "code", 130))
    except BrokenPipeError:  # whoever read the output has left, as in: tdc runs | head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it at the end)
        sys.exit(141)


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A line for what this package warns of; others' as Python has them."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"tdc: {message}\n"
    return _PYTHONS(message, category, filename, lineno, line)


def _unknown(verb: str) -> str:
    if "=" in verb or verb.startswith("-"):
        return f"'{verb}' stands in the place of a verb: did you mean tdc train {verb}?"
    close = difflib.get_close_matches(verb, VERBS, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown verb '{verb}'{hint}, known: {', '.join(VERBS)} (tdc --help shows one example each)"
