"""A run's configuration, composed by Hydra from conf/ and the words of a command line."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..tensor.errors import ConfigError
from .schema import ArchConfig, DatasetConfig, LauncherConfig, MethodConfig, OptimConfig, TrainConfig, validate

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_dir() -> Path:
    """The folder of the yaml files: beside the package in a source tree, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def typed(raw: DictConfig) -> TrainConfig:
    """The configuration as dataclasses, its ranges checked."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_object(raw)
    assert isinstance(config, TrainConfig)
    return validate(config)


# Their keys are the user's own, so none of them is unknown.
_OPEN = ("method.layers", "optim.optimizer.", "optim.scheduler.", "arch.target", "dataset.target")


def call_composed(words: list[str], job: Callable[[DictConfig], None]) -> None:
    """Compose the configuration that ``words`` ask for and call ``job`` with it, once or for each run of a sweep."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as exceptions, to be told in one line
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    store = ConfigStore.instance()
    store.store("schema", TrainConfig)
    groups = {
        "dataset": DatasetConfig,
        "arch": ArchConfig,
        "method": MethodConfig,
        "optim": OptimConfig,
        "launcher": LauncherConfig,
    }
    for group, schema in groups.items():
        store.store("schema", schema, group=group)
    if "COMP_LINE" in os.environ:  # completion: the verb is no override
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(" train ", " ", 1).replace(" show ", " ", 1)
        group, equals, name = os.environ["COMP_LINE"].rpartition(" ")[2].partition("=")
        print(*(f"{group}={found}" for found in _in_folders(group) if equals and found.startswith(name)))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["TDC_SWEEP_DIR"] = scratch  # where Hydra writes of a sweep what each run keeps anyway
            sys.argv = ["tdc", *(f"++{word}" if word.startswith(_OPEN) else word for word in words)]
            hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from None


def _in_folders(group: str) -> list[str]:
    """The names of a group that lie in folders, such as quick/trl: Hydra lists those of the group's own folder only."""
    folder = conf_dir() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml"))


def one_line(error: Exception) -> str:
    """A composition error as one line: what is wrong, and what would be right."""
    import difflib
    import re

    from omegaconf import OmegaConf

    schema, text = OmegaConf.structured(TrainConfig), str(error)
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    missing = re.search(r"Could not find '(\w+)/([^']*)'", text)
    if missing:
        group, name = missing.groups()
        known = set(re.findall(r"^\t(\w+)$", text, re.MULTILINE)) - {"schema"}
        return f"unknown {group} '{name}', known: {', '.join([*sorted(known), *_in_folders(group)])}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown[1]
        folder, _, name = key.rpartition(".")
        node = OmegaConf.select(schema, folder) if folder else schema
        keys = [str(k) for k in node] if OmegaConf.is_dict(node) else []
        close = difflib.get_close_matches(name, keys, 1)
        hint = f" (did you mean {folder + '.' if folder else ''}{close[0]}?)" if close else ""
        return f"unknown key '{key}'{hint}, known{' in ' + folder if folder else ''}: {', '.join(keys)}"
    lines = [line.strip() for line in f"{text}\n{cause if cause is not error else ''}".splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    told = next((line for line in reversed(lines) if "could not be converted" in line or "annot" in line), lines[0])
    return f"{key}: {told}" if key else told
