"""The commands that make the runs of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any

import pandas

from ....config.compose import call_composed, typed
from ....config.conf import choices
from ....config.schema import DatasetConfig, TrainConfig
from ....config.words import quoted
from ....tensor.errors import ConfigError
from ....tensor.formats import BASELINE
from ...identity import BLANK, OF_CORES, plain, whole_key, worded
from ...rows import natural

_COLUMNS = ("rank", "lr", "epochs", "batch_size", "seed")  # that a sweep may run over, besides the method
_CORE_LR = "optim.core_lr"
_SAID = ("seed", "rank", "lr", "epochs", "batch_size", "dataset.name", "arch.name", "arch.model")  # by columns
_PLAIN = re.compile(r"[\w./:+-]*")  # what Hydra reads as it stands
Values = tuple[Any, ...]


def commands(runs: pandas.DataFrame) -> list[str]:
    """Sweeps that make these runs, which differ in columns only, and no others; methods of one kind together."""
    first = runs.iloc[0]
    network = [*_named("dataset", first), *_named("arch", first)]
    found = []
    for variant, part in runs.groupby("variant"):
        ours = [whole_key(word) for word in variant.split()]
        words = [*network, *settings(network, _placed(first), ours)]
        if set(part["method"]) == {BASELINE}:  # which has no cores
            words = [word for word in words if not word.startswith(f"{_CORE_LR}=")]
        for method, swept in _sweeps(part):
            found.append(" ".join(["tdc train -m", *method, *swept, *map(quote, words)]))
    return found


def settings(network: Sequence[str], setting: Sequence[str], variant: Sequence[str]) -> list[str]:
    """Words for all that was chosen but what the columns of a table say: the optimizer's file, and what it lacks.

    ``network``: words for data set and network; ``setting``, ``variant``: as ``identity.choices`` gives them, with
    whole keys.
    """
    chosen = {key: word for key, _, word in (word.partition("=") for word in (*setting, *variant))}
    usual = {key: word for key, word in _usual().items() if not _of_cores(key)}
    whole = {key: word for key, word in usual.items() if not any(other.startswith(f"{key}.") for other in chosen)}
    whole |= chosen
    best: tuple[int, list[str]] | None = None
    for preset, base in _bases(tuple(network)):
        there = {*chosen, *base, *(key.rpartition(".")[0] for key in base)} - set(_SAID)
        keys = [key for key in whole if _of_cores(key) or (key in there and base.get(key) != whole[key])]
        lost = [key for key in base if key not in whole and not key.startswith(tuple(f"{one}." for one in keys))]
        words = [f"optim={preset}"] * bool(preset) + [f"{key}={_read(whole[key])}" for key in keys]
        cost = 100 * len(lost) + len(words)
        if best is None or cost < best[0]:
            best = cost, words
    return [f"{key}={_read(word)}" for key, word in chosen.items()] if best is None else best[1]


def _of_cores(key: str) -> bool:
    """Whether a key is of the method, or of how cores begin and are cut: it is said where it was chosen only."""
    return key.startswith(("method.", *OF_CORES)) and key != _CORE_LR


def _bases(network: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """What commands of this network ask for, by the optimizer's file, the usual one first, as no word.

    None where that cannot be composed: this version may not have such a network any more.
    """
    try:
        usual = _composed(network)
        found = {"": usual} | {name: _composed((f"optim={name}",)) for name in choices("optim")}
    except (ConfigError, ValueError):  # the second of Hydra's, where an application of its own writes the page
        return []
    rest = {key: word for key, word in usual.items() if not key.startswith("optim.") and not _of_cores(key)}
    return [
        (name, rest | {key: word for key, word in base.items() if key.startswith("optim.")})
        for name, base in found.items()
    ]


@cache
def _usual() -> dict[str, str]:
    """The values of what was not chosen; those of folders of images, too, which other data sets have not."""
    return worded(plain(TrainConfig(dataset=DatasetConfig("image_folder"))))


@cache  # to compose takes a tenth of a second
def _composed(words: tuple[str, ...]) -> dict[str, str]:
    """What a command of these words asks for."""
    found: list[dict[str, str]] = []
    call_composed(words, lambda composed: found.append(worded(plain(typed(composed)))))
    return found[0]


def _read(word: str) -> str:
    """A value as Hydra reads it."""
    text = word.replace(BLANK, " ")
    try:
        json.loads(text)
    except ValueError:
        return text if text.startswith("{") or _PLAIN.fullmatch(text) else quoted(text)
    return text


def _placed(row: pandas.Series[Any]) -> list[str]:
    """The words of the setting, with the run that is begun with where the results lie."""
    folder = Path(row["directory"]).parents[4]
    begun, place = f"init_from={folder.resolve().name}/", f"init_from={folder.as_posix()}/".replace(" ", BLANK)
    return [place + word.removeprefix(begun) if word.startswith(begun) else word for word in row["setting"].split()]


def _named(column: str, row: pandas.Series[Any]) -> list[str]:
    """Words for a row's data set or network; none where a setting says which."""
    if f"{column}.target._target_=" in row["setting"]:
        return []
    name, _, model = str(row[column]).partition("-")  # torchvision-resnet50 is arch=torchvision arch.model=resnet50
    return [f"{column}={name}", *([f"{column}.model={model}"] if model else [])]


def _sweeps(runs: pandas.DataFrame) -> Iterator[tuple[list[str], list[str]]]:
    """Of runs that differ in columns: words for methods, and for what else, of sweeps that make just these."""
    made: dict[str, set[Values]] = {}
    for row in runs.to_dict("records"):
        made.setdefault(row["method"], set()).add(tuple(row[column] for column in _COLUMNS))
    blocks: dict[tuple[Values, ...], list[str]] = {}
    for method in sorted(made):
        for block in _blocks(made[method]):
            blocks.setdefault(block, []).append(method)
    for block in [block for block in blocks if block[0] == ("",)]:  # of no rank, whatever a sweep says of ranks
        joined = next((other for other in blocks if other[0] != ("",) and other[1:] == block[1:]), None)
        if joined is not None:
            blocks[joined] = sorted([*blocks[joined], *blocks.pop(block)], key=lambda name: (name != BASELINE, name))
    for block, methods in blocks.items():
        mixed = [method for method in methods if "+" in method]
        together = [method for method in methods if "+" not in method]
        swept = [
            f"{column}={','.join(map(_number, values))}"
            for column, values in zip(_COLUMNS, block, strict=True)
            if values not in (("",), (None,))
        ]
        for group in [[",".join(together)]] * bool(together) + [method.split("+") for method in mixed]:
            name, *kinds = group  # tt+cp_conv is method=tt method.conv=cp
            parts = [kind.rpartition("_") for kind in kinds]
            yield [f"method={name}", *(f"method.{kind}={format}" for format, _, kind in parts)], swept


def _blocks(rows: set[Values]) -> list[tuple[Values, ...]]:
    """Products of values, column by column, that are these rows together."""
    axes = [sorted({row[k] for row in rows}, key=lambda value: natural(str(value))) for k in range(len(_COLUMNS))]
    for k, values in enumerate(axes):
        rests: dict[frozenset[Values], set[Any]] = {}
        for value in values:
            rest = frozenset(row[:k] + row[k + 1 :] for row in rows if row[k] == value)
            rests.setdefault(rest, set()).add(value)
        if len(rests) > 1:
            return [block for group in rests.values() for block in _blocks({row for row in rows if row[k] in group})]
    return [tuple(map(tuple, axes))]


def _number(value: Any) -> str:
    """As a command line takes it, all digits of it."""
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(value)
