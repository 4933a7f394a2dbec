"""The values that a word of a command gives to its key: one, or those of a sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep, Sweep

from ..tensor.errors import ConfigError
from .words import quoted

_MOST = 100_000  # values of a range
_CHOICE = re.compile(r"choice\((.*)\)\s*|(?!\w+\()(.*)", re.DOTALL)  # in words, or between commas alone
_PART = re.compile(r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\\.|[^,'"\\])+""", re.DOTALL)  # up to the next comma


def values(override: Override) -> list[Any]:
    """The value of a word, or those between its commas; none of a range and a glob.

    Raises ``ConfigError`` for a range of no values or of more than can be run, and where one value is itself a sweep.
    """
    value = override.value()
    if isinstance(value, Glob):
        return []
    if isinstance(value, RangeSweep):
        _check_range(str(override.input_line), value)
        return []
    found = list(value.list) if isinstance(value, ChoiceSweep) else [value]
    if any(map(_sweeps, found)):
        raise ConfigError(f"{override.input_line}: range, glob and choice stand alone, for all values of a key")
    return found


def written(word: str, override: Override, known: Sequence[str], text: bool) -> str:
    """The word as Hydra is to read it: in quotes where it would take text for a number (``results_dir=2024_01``), and
    with the names that a glob stands for.

    ``known``: the files of a group, if its key is one; ``text``: whether the key's values are text. Raises
    ``ConfigError`` for a glob of none.
    """
    value = override.value()
    if isinstance(value, Glob):
        return f"{override.get_key_element()}={','.join(_names(word, override.key_or_group, value, known))}"
    key, _, said = word.partition("=")
    given: Sequence[Any] = [value]
    parts = [said]
    if isinstance(value, ChoiceSweep):
        choice = _CHOICE.fullmatch(said)
        given, parts = value.list, _PART.findall(choice[1] or choice[2]) if choice else []
    numbers = [isinstance(one, int | float) for one in given]
    if not text or not any(numbers) or len(parts) != len(given):
        return word
    each = (quoted(part.strip()) if number else part for part, number in zip(parts, numbers, strict=True))
    return f"{key}={','.join(each)}"


def _check_range(word: str, value: RangeSweep) -> None:
    ends = (value.start, value.stop, value.step)
    if not all(end is not None and math.isfinite(end) for end in ends):
        raise ConfigError(f"{word} has no end of values: range(0,3) is 0,1,2, range(0,1,0.1) has a step")
    start, stop, step = map(float, ends)  # type: ignore[arg-type]
    if step == 0 or (stop - start) / step <= 0:
        raise ConfigError(f"{word} has no values: range(0,3) is 0,1,2, range(0,1,0.1) has a step")
    if (stop - start) / step > _MOST:
        raise ConfigError(f"{word} has more than {_MOST:,} values, as range(0,1,0.1) has not")


def _sweeps(value: Any) -> bool:
    """Whether a value is a sweep, or holds one."""
    if isinstance(value, list | dict):
        return any(map(_sweeps, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Sweep | Glob)


def _names(word: str, group: str, glob: Glob, known: Sequence[str]) -> list[str]:
    """The files of a group that a glob chooses."""
    names: list[str] = glob.filter(list(known))
    if not known:
        raise ConfigError(f"{word}: a glob stands for files, and {group} has none: list its values between commas")
    if not names:
        raise ConfigError(f"{word}: there is none such, known: {', '.join(known)}")
    return names
