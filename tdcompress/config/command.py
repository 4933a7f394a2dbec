"""The words of a command that composes a configuration: its flags, and its overrides, read before Hydra reads them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ..tensor.errors import ConfigError
from . import sweeps
from .conf import choices, conf_dir
from .keys import is_key, is_text, unknown_key
from .schema import ArchConfig, DatasetConfig, LauncherConfig, MethodConfig, OptimConfig, TrainConfig
from .words import pair, quoted

GROUPS = {
    "dataset": DatasetConfig,
    "arch": ArchConfig,
    "method": MethodConfig,
    "optim": OptimConfig,
    "launcher": LauncherConfig,
}
"""The groups of which every run has one choice, and their schemas."""

SHOWN = ("job", "hydra", "all")

# Their keys are the user's own, so Hydra is told to add them.
_OPEN = ("method.layers", "optim.optimizer", "optim.scheduler", "optim={", "arch.target", "dataset.target")


@dataclass
class _HydraKeys(HydraConf):
    """Hydra's own settings, with the one that its group ``hydra/env`` adds to them."""

    env: Any = None


@dataclass
class Keys(TrainConfig):
    """All keys that a command may name: a run's, and Hydra's own."""

    hydra: _HydraKeys = field(default_factory=_HydraKeys)


@dataclass(frozen=True)
class Flag:
    """A word with dashes: its spellings, what stands behind it (nothing where empty), and what it does."""

    names: tuple[str, ...]
    value: str
    said: str


FLAGS = {
    "sweep": Flag(("-m", "--multirun"), "", "a sweep: a run for each combination of the values between commas"),
    "shown": Flag(("-c", "--cfg"), "job", "print the configuration (hydra, all: Hydra's settings) and do nothing"),
    "part": Flag(("-p", "--package"), "KEY", "of --cfg: the part under this key"),
    "resolve": Flag(("--resolve",), "", "of --cfg: with what ${..} stands for"),
    "own": Flag(("-cd", "--config-dir"), "DIR", "a folder of yaml files of your own, beside those of conf/"),
}
"""By the fields of ``Command`` that they set."""


@dataclass(frozen=True)
class Command:
    """What the words of a command say.

    ``overrides``: ``key=value`` words, each in Hydra's grammar; ``sweep``: whether a sweep is asked for here (an
    experiment may ask for one itself); ``own``: the folder of a user's yaml files; ``shown``: what ``--cfg`` prints of
    the configuration, all else with it.
    """

    overrides: tuple[str, ...] = ()
    sweep: bool = False
    own: str | None = None
    shown: str | None = None
    part: str | None = None
    resolve: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the files of conf/ are asked for, with Hydra's own settings as they are there."""
        keys = [word.lstrip("+~").split("=", 1)[0] for word in self.overrides]
        return self.own is None and (self.shown is not None or not any(key.startswith("hydra") for key in keys))

    @property
    def words(self) -> list[str]:
        """The overrides as Hydra takes them."""
        return [f"++{word}" if word.startswith(_OPEN) else word for word in self.overrides]

    def for_hydra(self) -> list[str]:
        """The whole command as Hydra takes it: flags first."""
        flags = ["--multirun"] * self.sweep + ([f"--config-dir={self.own}"] if self.own is not None else [])
        one = ["hydra.mode=RUN"] * (self.shown is not None and not self.is_plain)
        return [*flags, *self.words, *one]


def parsed(words: Sequence[str]) -> Command:
    """The flags, wherever among ``words`` they stand, and the overrides, each of them one that can be composed.

    ``experiment=null`` is left out, with the experiments in front of it. Raises ``ConfigError`` for a flag or a key
    that there is not, and for a word that cannot be read.
    """
    given: dict[str, Any] = {}
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        key = next((key for key, flag in FLAGS.items() if name in flag.names), None)
        if key is None:
            raise ConfigError(_unknown_flag(name, value))
        if not FLAGS[key].value:
            if equals:
                raise ConfigError(f"{name} takes no value")
            given[key] = True
            continue
        value = value if equals else next(rest, "")
        if not value or value.startswith("-"):
            raise ConfigError(f"{name} needs a value, for example {name} {FLAGS[key].value}")
        given[key] = value
    command = Command(tuple(overrides), **given)
    _check_flags(command)
    own = Path(command.own) if command.own is not None else None
    said: list[str] = []
    for word in overrides:
        override = _override(word)
        if _asks_for_none(word, override, own):
            said = [other for other in said if _override(other).key_or_group != "experiment"]
            continue
        key = override.key_or_group
        said.append(sweeps.written(word, override, list(choices(key, own)), is_text(key, Keys)))
    return replace(command, overrides=tuple(said))


def _check_flags(command: Command) -> None:
    if command.own is not None and not Path(command.own).is_dir():
        raise ConfigError(f"--config-dir={command.own}: there is no such folder")
    if command.shown is None:
        alone = "--package" if command.part is not None else "--resolve" if command.resolve else None
        if alone is not None:
            raise ConfigError(f"{alone} says how --cfg shows the configuration: use it with --cfg job")
    elif command.shown not in SHOWN:
        raise ConfigError(f"unknown --cfg '{command.shown}', known: {', '.join(SHOWN)}")
    elif command.sweep:
        raise ConfigError("--cfg shows one configuration, and --multirun asks for several: leave one of them out")


def _unknown_flag(name: str, value: str) -> str:
    key = name.lstrip("-")
    if key and (is_key(key, Keys) or (conf_dir() / key).is_dir()):
        return f"unknown flag '{name}': keys have no dashes, {key}={value or '..'}"
    known = [one for flag in FLAGS.values() for one in flag.names]
    close = difflib.get_close_matches(name, known, 1)
    return f"unknown flag '{name}'{f' (did you mean {close[0]}?)' if close else ''}, known: {', '.join(known)}"


def _asks_for_none(word: str, override: Override, own: Path | None) -> bool:
    """Whether a word asks for no experiment. Raises ``ConfigError`` for one that cannot be composed."""
    key, there = override.key_or_group, choices(override.key_or_group, own)
    if override.package is not None and key in GROUPS:
        raise ConfigError(f"'{word}': {key} has its own place, {key}={word.partition('=')[2] or '..'}")
    if override.is_interval_sweep():
        raise ConfigError(f"{word} has no end of values: use range(0,1,0.1), or values between commas")
    if key == "experiment" and override.is_sweep_override():
        raise ConfigError(f"{word}: an experiment may be a sweep of its own, and a sweep has one: a command for each")
    if key == "launcher" and override.is_sweep_override():
        raise ConfigError(f"{word}: a sweep has one launcher")
    if override.is_delete():
        if key in GROUPS:
            raise ConfigError(f"'{word}': a run needs one, known: {', '.join(there)}")
        if is_key(key, Keys) and not key.startswith("hydra."):
            raise ConfigError(f"'{word}': a key is not removed, it is given a value, {key}=..")
        return key == "experiment"
    values = sweeps.values(override)
    if there and any(isinstance(value, list) for value in values):
        sweep = f"; -m {key}={','.join(list(there)[:2])} is a sweep" if key in GROUPS else ""
        raise ConfigError(f"{word}: {key} is one choice, not a list{sweep}")
    odd = [str(value).lower() for value in values if there and isinstance(value, int | float)]
    odd += ["schema"] * (key in GROUPS and "schema" in values)
    if odd:
        raise ConfigError(f"unknown {key} '{odd[0]}', known: {', '.join(there)}")
    if there and None in values:
        if key != "experiment":
            raise ConfigError(f"{key}=null: a run needs one, known: {', '.join(there)}")
        return True
    return False


def _override(word: str) -> Override:
    """One word, parsed. Raises ``ConfigError`` that says how it can be written."""
    if word.startswith("~") and "=" not in word:
        key, value = word[1:], ""
    else:
        key, value = pair(word)
    bare = key.lstrip("+~")
    if key != key.strip() or value.startswith("="):
        raise ConfigError(f"'{word}' is not of the form key=value: one equals sign, and no blanks around it")
    if not bare:
        raise ConfigError(f"'{word}' has no key in front of the equals sign")
    if "=" in word and not value:
        raise ConfigError(f"{bare} has no value")
    parser = OverridesParser.create()
    try:
        (override,) = parser.parse_overrides([word])
    except HydraException:
        raise ConfigError(_unreadable(parser, key, bare, value)) from None
    return override


def _unreadable(parser: OverridesParser, key: str, bare: str, value: str) -> str:
    """Why Hydra's grammar does not take a word, and what it takes."""
    try:
        parser.parse_overrides([f"{key}=0"])
    except HydraException:
        return unknown_key(bare, Keys)
    for left, right in ("[]", "{}", "()"):
        if value.startswith(left) and value.count(left) != value.count(right):
            return f"{bare}={value}: its brackets {left} {right} are not in pairs"
    if "," in value and "" in [part.strip() for part in value.split(",")]:
        return f"{bare}={value}: there is nothing between two of its commas"
    if value[0] in "'\"":
        return f"{bare}={value}: its quotes are not in pairs"
    if value.startswith("{") and (plain := re.sub("[\"']", "", value)) != value:
        return f"{bare}={value} cannot be read: names stand without quotes, {bare}={plain}"
    return f"{bare}={value} cannot be read; in quotes it is taken as it stands: {in_quotes(bare, value)}"


def in_quotes(key: str, value: str) -> str:
    """A value with characters that mean something to Hydra, as a shell takes it: ``"key='a,b'"``."""
    return f'"{key}={quoted(value)}"'


def named(words: Sequence[str]) -> set[str]:
    """The dotted keys that words which were composed give a value to, those in dictionaries too."""
    return {key for word in words for key in _dotted(_override(word).key_or_group, _override(word).value())}


def _dotted(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _dotted(f"{key}.{name}", inner)
    else:
        yield key


def unknown(key: str) -> str:
    """What is wrong with the dotted ``key``, which there is not, with the nearest of all those of conf/, too."""
    return unknown_key(key, Keys, free_keys())


@cache
def free_keys() -> tuple[str, ...]:
    """The dotted keys that the files of conf/ have in dictionaries of optimizers and schedules."""
    return tuple(dict.fromkeys(key for path in (conf_dir() / "optim").glob("*.yaml") for key in _in_file(path)))


def _in_file(path: Path) -> Iterator[str]:
    values = OmegaConf.load(path)
    assert isinstance(values, DictConfig)
    for group in ("optimizer", "scheduler"):
        found = values.get("optim", values).get(group) or {}
        yield from (f"optim.{group}.{key}" for key in found if key != "_target_")
