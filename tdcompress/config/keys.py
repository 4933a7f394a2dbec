"""Which keys a configuration has, and what is said of one that it has not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def is_key(key: str, schema: type) -> bool:
    """Whether the dotted ``key`` is a field of ``schema`` or of one of the dataclasses in it."""
    group, _, rest = _innermost(key, schema)
    return not rest or (len(rest) == 1 and rest[0] in get_type_hints(group))


def is_text(key: str, schema: type) -> bool:
    """Whether the dotted ``key`` is a field of text, or of none."""
    group, _, rest = _innermost(key, schema)
    return len(rest) == 1 and get_type_hints(group).get(rest[0]) in (str, str | None)


def unknown_key(key: str, schema: type, free: Iterable[str] = ()) -> str:
    """What is wrong with the dotted ``key``, which ``schema`` lacks: the nearest key there is, and all of its group.

    One of the same name in another group is nearest, then one of a similar name in this group, then in another.
    ``free``: dotted keys that dictionaries of the schema may have.
    """
    group, folder, (name, *_) = _innermost(key, schema)
    known = list(get_type_hints(group))
    if name in known:  # a value, not a group
        return f"unknown key '{key}': there is none in {f'{folder}.{name}' if folder else name}"
    elsewhere: dict[str, list[str]] = {}
    for path in (*_leaves(schema), *free):
        elsewhere.setdefault(path.rpartition(".")[2], []).append(path)
    last = key.rpartition(".")[2]
    near = elsewhere.get(last, [])
    if not near and not difflib.get_close_matches(name, known, 1):
        near = [
            path for other in difflib.get_close_matches(last, elsewhere, 1, cutoff=0.75) for path in elsewhere[other]
        ]
    return unknown(name, known, folder, near)


def unknown(name: str, known: Sequence[str], folder: str = "", near: Sequence[str] = ()) -> str:
    """The same for a ``name`` that is not among the ``known`` ones of a group; ``near``: what may have been meant."""
    dot = f"{folder}." if folder else ""
    meant = near or [dot + close for close in difflib.get_close_matches(name, known, 1)]
    hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return f"unknown key '{dot}{name}'{hint}, known{' in ' + folder if folder else ''}: {', '.join(known)}"


def _innermost(key: str, schema: type) -> tuple[type, str, list[str]]:
    """The innermost dataclass that ``key`` leads into, the dotted key of that one, and the parts that are left."""
    parts, group = key.split("."), schema
    for position, part in enumerate(parts):
        inner = _group(get_type_hints(group).get(part))
        if inner is None:
            return group, ".".join(parts[:position]), parts[position:]
        group = inner
    return group, key, []


def _leaves(schema: type, folder: str = "") -> Iterator[str]:
    """The dotted keys of a run's values, Hydra's own left out."""
    for name, kind in get_type_hints(schema).items():
        inner = _group(kind)
        if inner is None:
            yield folder + name
        elif name != "hydra":
            yield from _leaves(inner, f"{folder}{name}.")


def _group(kind: Any) -> type | None:
    return kind if isinstance(kind, type) and is_dataclass(kind) else None
