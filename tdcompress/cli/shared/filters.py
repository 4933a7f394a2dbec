"""The words that choose among runs: ``method=tt,cp status=finished``, a key for each column of their table."""

from __future__ import annotations

from dataclasses import dataclass, fields, make_dataclass
from typing import TypeVar, cast

from ...results.rows import COLUMNS
from ...tensor.rank import parse


@dataclass(frozen=True)
class Place:
    """What every verb that reads runs takes. ``results_dir``: the folder above runs/."""

    results_dir: str = "results"


T = TypeVar("T", bound=Place)


def with_filters(own: type[T]) -> type[T]:
    """The dataclass ``own`` with a field more for each column: the values wanted in it, none for whatever they are."""
    columns = [(column, tuple[str, ...], ()) for column in COLUMNS]
    return cast("type[T]", make_dataclass(own.__name__, columns, bases=(own,), frozen=True))


def filters(options: Place) -> dict[str, list[str]]:
    """The values of each column that are wanted; a list of bond sizes is one rank, and no rank that of dense runs."""
    wanted = {field.name: getattr(options, field.name) for field in fields(options) if field.name in COLUMNS}
    return {
        key: [str(parse(value)) if key == "rank" and value else value for value in values]
        for key, values in wanted.items()
        if values
    }
