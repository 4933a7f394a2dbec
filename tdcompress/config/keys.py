"""Which keys a configuration has, and what is said of one that it has not."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_type_hints


def stray_keys(values: Mapping[Any, Any], schema: type, folder: str = "") -> Iterator[str]:
    """The dotted keys of ``values`` (nested plain dictionaries) that ``schema`` (a dataclass) has no field for.

    Fields that are dataclasses are looked into; whatever else a field holds is its own: keys of a dictionary are free.
    """
    known = get_type_hints(schema)
    for key, value in values.items():
        path = f"{folder}.{key}" if folder else str(key)
        if key not in known:
            yield path
        elif (group := _group(known[key])) is not None and isinstance(value, Mapping):
            yield from stray_keys(value, group, path)


def unknown_key(key: str, schema: type) -> str:
    """What is wrong with the dotted ``key``, which ``schema`` lacks: the nearest key there is, and all of its group."""
    group, folder = schema, ""
    for part in key.split("."):
        known = get_type_hints(group)
        inner = _group(known.get(part))
        if inner is None:
            break
        group, folder = inner, f"{folder}.{part}" if folder else part
    if part in known:
        return f"unknown key '{key}': {folder + '.' if folder else ''}{part} is a value, without keys of its own"
    return unknown(part, list(known), folder)


def unknown(name: str, known: Sequence[str], folder: str = "") -> str:
    """The same for a ``name`` that is not among the ``known`` ones of a group."""
    dot = f"{folder}." if folder else ""
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {dot}{close[0]}?)" if close else ""
    return f"unknown key '{dot}{name}'{hint}, known{' in ' + folder if folder else ''}: {', '.join(known)}"


def _group(kind: Any) -> type | None:
    return kind if isinstance(kind, type) and is_dataclass(kind) else None
