"""The ``key=value`` words of a benchmark, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ..config.schema import DEVICES, PRECISIONS
from ..tensor.errors import ConfigError
from ..tensor.layout import LAYOUTS

T = TypeVar("T", bound="Options")


@dataclass(frozen=True)
class Options:
    """What every benchmark takes. ``threads``: of torch on a CPU, None: as many as torch chooses."""

    method: tuple[str, ...] = ()
    repeats: int = 11
    threads: int | None = None
    precision: str = "auto"
    device: str = "auto"
    results_dir: str = "results"


def read(words: Sequence[str], kind: type[T]) -> T:
    """The options of ``kind`` with the values that ``words`` give. Raises ``ConfigError`` for what cannot be used."""
    known = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"'{word}' is not of the form key=value")
        if key not in known:
            raise ConfigError(f"unknown key '{key}', known: {', '.join(sorted(known))}")
        if not value:
            raise ConfigError(f"{key} has no value")
        values[key] = _reader(key, known[key])(key, value)
    return kind(**values)


def _reader(key: str, default: Any) -> Callable[[str, str], Any]:
    """What reads the values of ``key``, by the type of its default unless it has a reader of its own."""
    if isinstance(default, tuple) and default and isinstance(default[0], int):
        return _wholes
    return _BY_KEY.get(key) or _BY_TYPE[type(default)]


def _text(key: str, value: str) -> str:
    return value


def _names(key: str, value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


def _whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{key}={value} is not a whole number of at least 1")
    return int(value)


def _wholes(key: str, value: str) -> tuple[int, ...]:
    return tuple(_whole(key, part) for part in value.split(","))


def _positive(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise ConfigError(f"{key}={value} is not a number greater than 0")
    return number


def _yes_or_no(key: str, value: str) -> bool:
    return _one_of("true", "false")(key, value) == "true"


def _one_of(*known: str) -> Callable[[str, str], str]:
    def reader(key: str, value: str) -> str:
        if value not in known:
            raise ConfigError(f"unknown {key} '{value}', known: {', '.join(known)}")
        return value

    return reader


_BY_KEY: dict[str, Callable[[str, str], Any]] = {
    "precision": _one_of(*PRECISIONS),
    "device": _one_of(*DEVICES),
    "layout": _one_of(*LAYOUTS),
    "threads": _whole,
    "limit": _whole,
}


_BY_TYPE: dict[type, Callable[[str, str], Any]] = {
    str: _text,
    tuple: _names,
    int: _whole,
    float: _positive,
    bool: _yes_or_no,
    type(None): _text,
}
