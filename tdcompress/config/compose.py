"""A run's configuration, composed by Hydra from conf/ and the words of a command line."""

from __future__ import annotations

import copy
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ..tensor.errors import ConfigError
from .command import GROUPS, Command, Keys, parsed, unknown
from .conf import choices, conf_dir
from .errors import one_line
from .keys import stray_keys
from .replaced import left_out
from .schema import TrainConfig, validate

_NOTHING = object()


@dataclass(frozen=True)
class Composed:
    """What a command line asks for, or one run of its sweep: the configuration, and the words that chose it.

    ``choices``: the file of each group that is in it; ``notes``: lines that say what of these files was left out.
    """

    raw: DictConfig
    words: tuple[str, ...]
    sweep: bool
    choices: Mapping[str, str | None]
    notes: tuple[str, ...] = ()

    @property
    def given(self) -> set[str]:
        """The dotted keys and the groups that the words name, without ``+`` and ``~``."""
        return {word.lstrip("+~").split("=", 1)[0] for word in self.words}

    @property
    def init_from(self) -> str | None:
        """The weights to start from."""
        return cast("str | None", self.raw.init_from)

    def plain(self) -> dict[str, Any]:
        """The configuration as nested dictionaries of plain values."""
        return cast("dict[str, Any]", OmegaConf.to_container(self.raw, resolve=True))

    def after(self, saved: Mapping[str, Any]) -> Composed:
        """The same on top of ``saved``, a part of a configuration: its values hold but where the words say otherwise.

        Raises ``ConfigError`` for a key or a value that is none of this version's.
        """
        raw = copy.deepcopy(self.raw)
        OmegaConf.set_struct(raw, False)  # dictionaries take keys that they have not; the schema takes none in any case
        try:
            merged = OmegaConf.merge(raw, dict(saved))
            for key in self.given:
                if key.split(".")[0] in saved:
                    OmegaConf.update(merged, key, OmegaConf.select(self.raw, key))
        except OmegaConfBaseException as error:
            raise ConfigError(one_line(error)) from None
        return replace(self, raw=cast(DictConfig, merged))

    def holding(self, values: Mapping[str, Any]) -> Composed:
        """The same with these ``values``, a part of a configuration, whatever the words say."""
        return replace(self, raw=cast(DictConfig, OmegaConf.merge(self.raw, dict(values))))

    def files(self) -> dict[str, str]:
        """Texts to keep beside the run's results, by their names there, as Hydra writes them."""
        words = OmegaConf.create(list(self.words))
        return {".hydra/config.yaml": OmegaConf.to_yaml(self.raw), ".hydra/overrides.yaml": OmegaConf.to_yaml(words)}


def defaults() -> Composed:
    """What a command without words asks for."""
    found: list[Composed] = []
    call_composed([], found.append)
    return found[0]


def typed(composed: Composed) -> TrainConfig:
    """The configuration as dataclasses, its ranges checked. Raises ``ConfigError`` for what cannot be used."""
    return _typed(composed.raw)


def baseline(words: Sequence[str]) -> TrainConfig:
    """What ``words`` alone give; only from within a ``job`` of ``call_composed``.

    Raises ``ConfigError`` for a name of a group that has no yaml file.
    """
    return _baseline(tuple(words), str(GlobalHydra.instance().config_loader().get_search_path()))


@cache  # to compose takes a tenth of a second
def _baseline(words: tuple[str, ...], folders: str) -> TrainConfig:
    """The same, of the yaml files in ``folders``."""
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
    return validate(_in_one_spelling(config))


def _in_one_spelling(config: TrainConfig) -> TrainConfig:
    """The same configuration, whatever of two words for one thing it was asked for by: a run has one directory."""
    method, dataset = config.method, config.dataset
    conv, linear = (None if name == method.format else name for name in (method.conv, method.linear))
    start, root = (path and os.path.normpath(path) for path in (config.init_from, dataset.root))
    method, dataset = replace(method, conv=conv, linear=linear), replace(dataset, root=root)
    return replace(config, method=method, dataset=dataset, init_from=start)


def call_composed(words: Sequence[str], job: Callable[[Composed], object]) -> None:
    """Compose the configuration that ``words`` ask for and call ``job`` with it, once or for each run of a sweep.

    With the flag ``--cfg`` it is printed, and ``job`` is not called. Raises ``ConfigError`` for a choice, a key or a
    value that the schema lacks, however it is spelled and wherever it stands: after ``+``, in a yaml file of the
    user's, in a sweep. ``job`` is then not called for the runs that have it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions, to be told in one line
    store = ConfigStore.instance()
    store.store("schema", TrainConfig)
    for group, schema in GROUPS.items():
        store.store("schema", schema, group=group)
    if {"-sc", "--shell-completion"} & set(words):
        _complete(words)
        return
    command = parsed(words)
    if command.shown is None:
        _compose(command, job)
    else:
        _compose(command, lambda composed: print(_shown(composed, command), end=""))


def _complete(words: Sequence[str]) -> None:
    """Answer the shell, which asks through Hydra what a word may end in, or how it is to ask."""
    if not any(word.startswith(("install=", "uninstall=", "query=")) for word in words):
        raise ConfigError("--shell-completion needs install=SHELL or uninstall=SHELL, with bash, zsh or fish as SHELL")
    if "COMP_LINE" in os.environ:  # the verb is no override
        line, found = re.subn(r" (train|show|compress) ", " ", os.environ["COMP_LINE"], count=1)
        if not found:
            return  # others compose nothing
        os.environ["COMP_LINE"] = line
        group, equals, name = os.environ["COMP_LINE"].rpartition(" ")[2].partition("=")
        folders = [one for one in choices(group) if "/" in one]  # Hydra lists those of the group's own folder
        print(*(f"{group}={one}" for one in folders if equals and one.startswith(name)))
    _hydra(words, lambda raw: None)


def _shown(composed: Composed, command: Command) -> str:
    """What ``--cfg`` prints of a configuration."""
    settings = OmegaConf.create({"hydra": HydraConfig.get()})
    parts = {"job": [composed.raw], "hydra": [settings], "all": [settings, composed.raw]}[str(command.shown)]
    whole = OmegaConf.unsafe_merge(*(OmegaConf.create(OmegaConf.to_container(part)) for part in parts))
    part = OmegaConf.select(whole, command.part, default=_NOTHING) if command.part is not None else whole
    if part is _NOTHING:
        raise ConfigError(unknown(str(command.part)))
    text = (
        OmegaConf.to_yaml(part, resolve=command.resolve) if OmegaConf.is_config(part) else f"{command.part}: {part}\n"
    )
    return "".join(f"# {note}\n" for note in composed.notes) + text


def _compose(command: Command, job: Callable[[Composed], object]) -> None:
    refused: list[ConfigError] = []

    def checked(raw: DictConfig) -> None:
        try:  # what leaves this function as an exception, Hydra says in its own words
            settings = HydraConfig.get()
            found = next(_stray_keys(raw, settings), None)
            if found is not None:
                raise ConfigError(unknown(found))
            sweep = settings.mode is not None and settings.mode.name == "MULTIRUN"
            words = tuple(settings.overrides.task)
            chosen = dict(settings.runtime.choices)
            job(Composed(raw, words, sweep, chosen, left_out(raw, words, chosen["optim"])))
        except OmegaConfBaseException as error:
            refused.append(ConfigError(one_line(error)))
        except ConfigError as error:
            refused.append(error)

    try:
        if command.is_plain:
            _plain(command, checked)
        else:
            _hydra(command.for_hydra(), checked)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from None
    except YAMLError as error:
        raise ConfigError(f"a yaml file cannot be read: {' '.join(str(error).split())}") from None
    if refused:
        raise refused[0]


def _plain(command: Command, job: Callable[[DictConfig], None]) -> None:
    """``_hydra`` of words that leave Hydra's own settings alone: each run is composed once, not twice."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for number, words in enumerate(_runs(command)):
            raw = hydra.compose("train", overrides=words, return_hydra_config=True)
            if raw.hydra.mode == RunMode.MULTIRUN:
                raw.hydra.job.id = raw.hydra.job.num = number
            HydraConfig.instance().set_config(raw)
            with open_dict(raw):
                del raw["hydra"]
            job(raw)


def _runs(command: Command) -> Iterator[list[str]]:
    """The words of each run: of a sweep, one for each combination of the values that it and its experiment list."""
    words, sweep = command.words, command.sweep
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(words)
    if command.shown is None and any(override.key_or_group.split("/")[0] == "experiment" for override in overrides):
        single = [word for word, override in zip(words, overrides, strict=True) if not override.is_sweep_override()]
        settings = hydra.compose("train", overrides=single, return_hydra_config=True).hydra
        sweep = sweep or settings.mode == RunMode.MULTIRUN
        params = settings.sweeper.params or {}
        overrides = [*parser.parse_overrides([f"{key}={value}" for key, value in params.items()]), *overrides]
    if not sweep:
        yield words
        return
    values: dict[str, list[str]] = {}
    for override in overrides:
        sweeps, value = override.is_sweep_override(), override.get_value_element_as_str
        values[override.get_key_element()] = list(override.sweep_string_iterator()) if sweeps else [value()]
    for one in itertools.product(*values.values()):
        yield [*(f"{key}={value}" for key, value in zip(values, one, strict=True)), "hydra.mode=MULTIRUN"]


def _hydra(words: Sequence[str], job: Callable[[DictConfig], None]) -> None:
    """Let Hydra compose what ``words`` ask for, and call ``job`` with it."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TDC_SWEEP_DIR"] = scratch  # where Hydra writes of a sweep what each run keeps anyway
        sys.argv = ["tdc", *words]
        hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")(job)()


def _stray_keys(raw: DictConfig, settings: HydraConf) -> Iterator[str]:
    """The keys of a composed configuration, and of Hydra's settings for it, that are none.

    OmegaConf does not refuse them: ``+`` in front of a key opens the schema, and so does a package behind a group.
    """
    values = cast("dict[str, Any]", OmegaConf.to_container(raw, resolve=True))
    return stray_keys({**values, "hydra": OmegaConf.to_container(cast(DictConfig, settings))}, Keys)
