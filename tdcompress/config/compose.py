"""A run's configuration, composed by Hydra from conf/ and the words of a command line."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..tensor.errors import ConfigError
from .keys import is_key, stray_keys, unknown_key
from .schema import ArchConfig, DatasetConfig, LauncherConfig, MethodConfig, OptimConfig, TrainConfig, validate

_GROUPS = {
    "dataset": DatasetConfig,
    "arch": ArchConfig,
    "method": MethodConfig,
    "optim": OptimConfig,
    "launcher": LauncherConfig,
}


@dataclass
class _HydraKeys(HydraConf):
    """Hydra's own settings, with the one that its group ``hydra/env`` adds to them."""

    env: Any = None


@dataclass
class _Keys(TrainConfig):
    """All keys that a command may name: a run's, and Hydra's own."""

    hydra: _HydraKeys = field(default_factory=_HydraKeys)


# Their keys are the user's own, so Hydra is told to add them.
_OPEN = ("method.layers", "optim.optimizer.", "optim.scheduler.", "arch.target", "dataset.target")


@dataclass(frozen=True)
class Composed:
    """What a command line asks for, or one run of its sweep: the configuration, and the words that chose it."""

    raw: DictConfig
    words: tuple[str, ...]
    sweep: bool

    @property
    def given(self) -> set[str]:
        """The dotted keys and the groups that the words name, without ``+`` and ``~``."""
        return {word.lstrip("+~").split("=", 1)[0] for word in self.words}

    @property
    def init_from(self) -> str | None:
        """The weights to start from."""
        return cast("str | None", self.raw.init_from)

    def after(self, saved: Mapping[str, Any]) -> Composed:
        """The same on top of ``saved``, a part of a configuration: its values hold but where the words say otherwise.

        Raises ``ConfigError`` for a key or a value that is none of this version's.
        """
        try:
            merged = OmegaConf.merge(self.raw, dict(saved))
            for key in self.given:
                if key.split(".")[0] in saved:
                    OmegaConf.update(merged, key, OmegaConf.select(self.raw, key))
        except OmegaConfBaseException as error:
            raise ConfigError(one_line(error)) from None
        return Composed(cast(DictConfig, merged), self.words, self.sweep)

    def files(self) -> dict[str, str]:
        """Texts to keep beside the run's results, by their names there, as Hydra writes them."""
        words = OmegaConf.create(list(self.words))
        return {".hydra/config.yaml": OmegaConf.to_yaml(self.raw), ".hydra/overrides.yaml": OmegaConf.to_yaml(words)}


def conf_dir() -> Path:
    """The folder of the yaml files: beside the package in a source tree, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def typed(composed: Composed) -> TrainConfig:
    """The configuration as dataclasses, its ranges checked. Raises ``ConfigError`` for what cannot be used."""
    return _typed(composed.raw)


def baseline(words: Sequence[str]) -> TrainConfig:
    """What ``words`` alone give, composed anew; only from within a ``job`` of ``call_composed``.

    Raises ``ConfigError`` for a name of a group that has no yaml file.
    """
    try:
        return _typed(hydra.compose("train", overrides=list(words)))
    except HydraException as error:
        raise ConfigError(one_line(error)) from None


def _typed(raw: DictConfig) -> TrainConfig:
    try:
        config = OmegaConf.to_object(raw)
    except OmegaConfBaseException as error:  # such as an interpolation of nothing
        raise ConfigError(one_line(error)) from None
    assert isinstance(config, TrainConfig)
    return validate(config)


def call_composed(words: Sequence[str], job: Callable[[Composed], object]) -> None:
    """Compose the configuration that ``words`` ask for and call ``job`` with it, once or for each run of a sweep.

    Raises ``ConfigError`` for a choice, a key or a value that the schema lacks, however it is spelled and wherever it
    stands: after ``+``, in a yaml file of the user's, in a sweep. ``job`` is then not called for the runs that have it.
    """
    for word in words:
        if word.lstrip("+~").startswith("="):
            raise ConfigError(f"'{word}' has no key in front of the equals sign")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions, to be told in one line
    store = ConfigStore.instance()
    store.store("schema", TrainConfig)
    for group, schema in _GROUPS.items():
        store.store("schema", schema, group=group)
    if "COMP_LINE" in os.environ:  # completion: the verb is no override
        os.environ["COMP_LINE"] = re.sub(r" (train|show|compress) ", " ", os.environ["COMP_LINE"], count=1)
        group, equals, name = os.environ["COMP_LINE"].rpartition(" ")[2].partition("=")
        print(*(f"{group}={found}" for found in _in_folders(group) if equals and found.startswith(name)))
    hidden = _without_cfg(words)
    if len(hidden) < len(words):  # Hydra prints the configuration and calls nothing that could check it
        if {"-m", "--multirun"} & set(words):
            raise ConfigError("--cfg shows one configuration, and --multirun asks for several: leave one of them out")
        _compose([*hidden, "hydra.mode=RUN"], lambda composed: None)
    _compose(words, job)


def _without_cfg(words: Sequence[str]) -> list[str]:
    """The words without ``--cfg`` and what belongs to it."""
    kept, rest = [], iter(words)
    for word in rest:
        if word in ("--cfg", "-c", "--package", "-p"):
            next(rest, None)
        elif word != "--resolve" and not word.startswith(("--cfg=", "--package=")):
            kept.append(word)
    return kept


def _compose(words: Sequence[str], job: Callable[[Composed], object]) -> None:
    stray: list[str] = []

    def checked(raw: DictConfig) -> None:
        settings = HydraConfig.get()
        found = next(_stray_keys(raw, settings), None)
        if found is not None:
            stray.append(found)  # raised below: Hydra would print its own lines
            return
        sweep = settings.mode is not None and settings.mode.name == "MULTIRUN"
        job(Composed(raw, tuple(settings.overrides.task), sweep))

    try:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["TDC_SWEEP_DIR"] = scratch  # where Hydra writes of a sweep what each run keeps anyway
            sys.argv = ["tdc", *(f"++{word}" if word.startswith(_OPEN) else word for word in words)]
            hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")(checked)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from None
    if stray:
        raise ConfigError(unknown_key(stray[0], _Keys))


def _stray_keys(raw: DictConfig, settings: HydraConf) -> Iterator[str]:
    """The keys of a composed configuration, and of Hydra's settings for it, that are none.

    OmegaConf does not refuse them: ``+`` in front of a key opens the schema, and so does a package behind a group.
    """
    values = cast("dict[str, Any]", OmegaConf.to_container(raw, resolve=True))
    return stray_keys({**values, "hydra": OmegaConf.to_container(cast(DictConfig, settings))}, _Keys)


def _in_folders(group: str) -> list[str]:
    """The names of a group that lie in folders, such as quick/trl: Hydra lists those of the group's own folder only."""
    folder = conf_dir() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml"))


def one_line(error: Exception) -> str:
    """A composition error as one line: what is wrong, and what would be right."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    missing = re.search(r"Could not find '(\w+)/([^']*)'", text)
    if missing:
        group, name = missing.groups()
        known = set(re.findall(r"^\t(\w+)$", text, re.MULTILINE)) - {"schema"}
        return f"unknown {group} '{name}', known: {', '.join([*sorted(known), *_in_folders(group)])}"
    lines = [line.strip() for line in f"{text}\n{cause if cause is not error else ''}".splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    gone = re.search(r"Could not delete from config. '([^']+)' does not exist", text)
    if (gone and not is_key(gone[1], _Keys)) or re.search(r"Key '[^']+' (?:is )?not in ", "\n".join(lines)):
        where = re.match(r"In '[^']+': ", text)
        return (where[0] if where else "") + unknown_key(gone[1] if gone else key, _Keys)
    told = next((line for line in reversed(lines) if "could not be converted" in line or "annot" in line), lines[0])
    if told.startswith("Error merging override ") and cause is not error:  # and the reason lies beneath
        return f"{told.removeprefix('Error merging override ')}: {str(cause).splitlines()[0]}"
    return f"{key}: {told}" if key else told
