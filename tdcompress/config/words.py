"""The ``key=value`` words of a command that composes nothing: read into a dataclass, by the types of its fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..tensor.errors import ConfigError
from .keys import unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)

# A value of a list: in quotes or in brackets, or up to the next comma.
_PART = re.compile(r"""("[^"]*"|'[^']*'|\[[^\]]*\]|[^,]*),""")
_QUOTED = re.compile(r"""(["'])(.*)\1""", re.DOTALL)
_SAID = {bool: "true or false", int: "a whole number of at least 1", float: "a number greater than 0", str: "text"}
_NAMES, _ZERO = "names", "zero"


def choice(default: Any, known: Iterable[str]) -> Any:
    """A field of such a dataclass that takes one of the ``known`` names (or, as ``default`` may be, None)."""
    return field(default=default, metadata={_NAMES: tuple(known)})


def from_zero(default: Any) -> Any:
    """A field of such a dataclass whose numbers may be 0."""
    return field(default=default, metadata={_ZERO: True})


def read(words: Sequence[str], kind: type[T]) -> T:
    """An instance of the dataclass ``kind``, with the values that ``words`` give to its fields, its defaults elsewhere.

    A word is ``key=value``; of a key given twice the last one holds. Fields are text, whole numbers, numbers, true or
    false, each perhaps ``| None``, or tuples of these, whose values stand between commas: ``method=cp,tt``. Every
    number is a size: a whole one is at least 1, another greater than 0, unless its field is ``from_zero``, and finite.
    A value may hold ``=``; in a list, one with a comma stands in quotes or in brackets: ``rank=[4,8],10x``. Raises
    ``ConfigError`` for an unknown key (with the nearest that there is), a word without ``=``, a key without a value,
    and a value of another type or beyond a field's ``choice``.
    """
    known, hints = {one.name: one for one in fields(kind)}, get_type_hints(kind)
    schema = OmegaConf.structured(kind)
    values: dict[str, Any] = {}
    for key, text in map(pair, words):
        if key not in known:
            raise ConfigError(unknown(key, list(known)))
        if not text:
            raise ConfigError(f"{key} has no value")
        many = get_origin(hints[key]) is tuple
        given = [_bare(part) for part in _PART.findall(text + ",")] if many else _bare(text)
        found = _converted(schema, key, given)
        each = found if many else (found,)
        zero = bool(known[key].metadata.get(_ZERO))
        if found is None or not all(_fits(value, _type(hints[key])) or (zero and value == 0) for value in each):
            raise ConfigError(f"{key}={text} is not {_SAID[_type(hints[key])]}{' or 0' * zero}")
        names = known[key].metadata.get(_NAMES, each)
        odd = [value for value in each if value not in names]
        if odd:
            raise ConfigError(f"unknown {key} '{odd[0]}', known: {', '.join(names)}")
        values[key] = tuple(found) if many else found
    return kind(**values)


def split(words: Sequence[str], kind: type[DataclassInstance]) -> tuple[list[str], list[str]]:
    """The words that give a field of ``kind`` a value, and the others."""
    known = {one.name for one in fields(kind)}
    own = [word for word in words if "=" in word and word.split("=", 1)[0] in known]
    return own, [word for word in words if word not in own]


def quoted(value: str) -> str:
    """``value`` as Hydra reads it where a word gives it to a key, whatever characters it has."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    ending = escaped[len(escaped.rstrip("\\")) :]  # backslashes before the closing quote
    return f"'{escaped}{ending}'"


def pair(word: str) -> tuple[str, str]:
    """Key and value of a word. Raises ``ConfigError`` for one without an equals sign."""
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"'{word}' is not of the form key=value")
    return key, value


def _converted(schema: Any, key: str, given: str | list[str]) -> Any:
    """What OmegaConf makes of the text of a value, by the schema; None where it is of another type."""
    try:
        merged = OmegaConf.merge(schema, {key: given})
    except OmegaConfBaseException:
        return None
    return cast("dict[str, Any]", OmegaConf.to_container(merged))[key]


def _bare(text: str) -> str:
    quotes = _QUOTED.fullmatch(text)
    return quotes[2] if quotes else text


def _type(hint: Any) -> type:
    """The type of a field's values: the first one in ``tuple[int, ...]`` or ``int | None``."""
    return _type(get_args(hint)[0]) if get_args(hint) else hint


def _fits(value: Any, kind: type) -> bool:
    if kind is bool or kind is str:
        return isinstance(value, kind) and value != ""
    if not isinstance(value, int | float):  # an interpolation
        return False
    return value >= 1 if kind is int else 0 < value < math.inf
