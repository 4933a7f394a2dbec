"""What makes two runs the same run, and the directory that follows from it."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from ..config.schema import AUTO, MethodConfig, TrainConfig, validate
from ..tensor.errors import ConfigError
from ..tensor.formats import BASELINE
from ..tensor.rank import Budget, Rank, parse, reached

# Said by the path itself, so the hash of "what else differs" leaves them out.
_IN_PATH = ("seed", "rank", "dataset.name", "arch.name", "arch.model", "method.format", "method.conv", "method.linear")

BLANK = "␣"  # stands in a word for a blank

_FREE = ("dataset.target.", "arch.target.", "optim.optimizer.", "optim.scheduler.")  # arguments, by a user's own names

OF_CORES = ("full_rank_epochs", "cut", "switch.", "optim.core_lr")  # said with the method: dense has none of it


def plain(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain JSON values, as summary.json and checkpoints hold it."""
    values: dict[str, Any] = json.loads(json.dumps(config, default=_plain))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Rank):
        return value.plain
    return vars(value) if is_dataclass(value) else str(value)


def typed(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that ``plain`` gave, checked; a field that ``values`` lacks has its default.

    Raises ``ConfigError`` for a field that there is not: a later version may have written it.
    """
    config = TrainConfig(full_rank_epochs=0, method=MethodConfig(rank_multiple=1))
    for key, value in values.items():
        default: Any = getattr(config, key, None)
        changed: dict[str, Any] = {}
        try:
            changed[key] = replace(default, **value) if is_dataclass(type(default)) else value
            config = replace(config, **changed)
        except TypeError as error:
            raise ConfigError(f"the configuration's {key} is of another version of tdcompress ({error})") from None
    return validate(config)


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a ``plain`` configuration that decides a run's results.

    Where results go, where the data of a known set lie, what they are called and whether they may be downloaded, how
    they are read, which device computes, whether its work is recorded, profiled or watched and beside how many other
    runs do not decide; neither do a rank, a method and rates of cores that no layer has (everything dense), nor whether
    a budget is called ``adaptive:`` after epochs at full rank, where it is reached by cuts in any case; nor what a
    user's own data or network are called beside the function that gives them. A field that
    ``values`` lacks was not there yet when it was saved: it has its default, but ``full_rank_epochs``, which then were
    0, and ``rank_multiple``, 1, which decides nothing without a budget. ``auto`` is 0 where there is no budget, or
    where there are weights.
    """
    whole = {key: dict(value) if isinstance(value, dict) else value for key, value in _defaults().items()}
    whole["full_rank_epochs"], whole["method"]["rank_multiple"] = 0, 1
    for key, value in values.items():
        whole[key] = whole[key] | value if isinstance(value, dict) and isinstance(whole.get(key), dict) else value
    for key in ("results_dir", "device", "launcher", "cuda_graphs", "profile", "tensorboard"):
        del whole[key]
    for group in ("dataset", "arch"):
        if whole[group]["target"]:  # by which it is called
            whole[group]["name"] = _defaults()[group]["name"]
    for key in ("label", "download", "stream", "workers"):
        del whole["dataset"][key]
    if whole["dataset"]["name"] not in ("image_folder", "video_folder"):  # there the folder is the data set
        del whole["dataset"]["root"], whole["dataset"]["broken"]
    if whole["dataset"]["validation"] == 0:
        whole["dataset"]["validation_seed"] = None
    whole["rank"] = str(whole["rank"])
    if not is_budget(str(whole["rank"])):
        whole["method"]["rank_multiple"] = _defaults()["method"]["rank_multiple"]
    whole["full_rank_epochs"] = _full_rank_epochs(whole)
    if whole["full_rank_epochs"] == 0 or not is_budget(str(whole["rank"])):
        whole["cut"] = _defaults()["cut"]
    else:
        whole["rank"] = str(reached(whole["rank"]))
    whole["method"]["layers"] = _in_order(whole["method"]["layers"])
    if all_dense(whole["method"]):
        whole["rank"], whole["method"] = None, dict(_dense_method())
        whole["optim"]["core_lr"] = _defaults()["optim"]["core_lr"]
    return whole


def _in_order(layers: dict[str, Any]) -> dict[str, Any]:
    """Settings by patterns of names: equal in one order only where a name may fit two, of which the last holds."""
    wild = {pattern for pattern in layers if set("*?[") & set(pattern)}
    for one, other in itertools.combinations(layers, 2):
        if {one, other} <= wild or fnmatch(one, other) or fnmatch(other, one):
            return OrderedDict(layers)
    return layers


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with ``full_rank_epochs`` as they are: a number, or ``auto`` where the rule is to say.

    And with one name of a budget that is reached by cuts after them, see ``identity``.
    """
    here = identity(plain(config))
    rank = config.rank if here["rank"] is None else parse(here["rank"])
    return replace(config, full_rank_epochs=here["full_rank_epochs"], rank=rank)


def fitted(values: dict[str, Any]) -> bool:
    """Whether the cores of a run of this ``plain`` configuration were fitted to trained weights."""
    return values.get("init_from") is not None or identity(values)["full_rank_epochs"] != 0


def _full_rank_epochs(whole: dict[str, Any]) -> Any:
    if all_dense(whole["method"]):
        return 0
    if whole["full_rank_epochs"] != AUTO:
        return whole["full_rank_epochs"]
    try:
        rank = parse(whole["rank"])
    except ConfigError:  # which whoever trains or shows it is told
        return 0
    if not isinstance(rank, Budget) or whole["init_from"] is not None:
        return 0
    return AUTO if whole["epochs"] > 1 + rank.adaptive else 0


def is_budget(rank: str) -> bool:
    """Whether a rank, as a table has it, is one of the whole network."""
    with suppress(ConfigError):  # which whoever trains or shows it is told
        return isinstance(parse(rank), Budget)
    return False


def _changes(values: dict[str, Any], others: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``differences`` of the identities of two ``plain`` configurations; default full-rank epochs are none."""
    here = identity(values)
    usual = identity(values | {"full_rank_epochs": AUTO})["full_rank_epochs"]
    return differences(here, identity(others) | {"full_rank_epochs": usual})


def differences(left: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys at which two nested dictionaries differ, with both values: None where one has no such key, and an
    object that reads null where it is given a user's argument as null."""
    a, b = _flat(left), _flat(right)
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def choices(values: dict[str, Any]) -> tuple[str, str]:
    """What was chosen beside the columns of a table of runs, as ``key=value`` words: of the method, and of the rest.

    ``values`` is a ``plain`` configuration. Two runs that differ only in columns have the same words. Of the method is
    also how it begins, is cut and learns; ``whole_key`` gives a word as a command line takes it.
    """
    changed = _changes(values, _defaults())
    words = {
        key: f"{key}={as_word(value)}"
        for key, (value, _) in changed.items()
        if key not in (*_IN_PATH, "lr", "epochs", "batch_size")
    }
    of_method = {
        key: word.removeprefix("method.") for key, word in words.items() if key.startswith(("method.", *OF_CORES))
    }
    return " ".join(of_method.values()), " ".join(word for key, word in words.items() if key not in of_method)


def worded(values: dict[str, Any]) -> dict[str, str]:
    """The values of a ``plain`` configuration's identity by their dotted keys, as ``choices`` writes them."""
    return {key: as_word(value) for key, value in _flat(identity(values)).items()}


def whole_key(word: str) -> str:
    """A word of the method, as ``choices`` shortens it, with its whole key."""
    return word if word.startswith(OF_CORES) else f"method.{word}"


def as_word(value: Any) -> str:
    """A value as a command line takes it; a blank is drawn, because words end at one."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_word(inner)}" for key, inner in value.items()) + "}"
    text = str(value) if isinstance(value, str | _Null) else json.dumps(value, separators=(",", ":"))
    return text.replace(" ", BLANK)


def method_name(method: MethodConfig) -> str:
    """The format, and the ones that convolutions and linear layers have instead: ``tt``, ``tt+cp_conv``."""
    parts = [method.format]
    parts += [f"{method.conv}_conv"] if method.conv else []
    parts += [f"{method.linear}_linear"] if method.linear else []
    return "+".join(parts)


def dataset_name(config: TrainConfig) -> str:
    """The registry's name, or the dotted path of a user's own loader."""
    return _own_or(config.dataset.target, config.dataset.name)


def arch_name(config: TrainConfig) -> str:
    """The registry's name, with that of the model where it has many, or the dotted path of a user's own."""
    return _own_or(config.arch.target, "-".join(filter(None, (config.arch.name, config.arch.model))))


def run_directory(config: TrainConfig, baseline: TrainConfig) -> Path:
    """``<results_dir>/runs/<dataset>/<arch>/<method>-<rank>[-<hash of what else differs from baseline>]/seed<k>``.

    ``baseline`` is what the same data set, arch and method give with nothing else chosen. No value can lead outside
    ``results_dir``: what a file name cannot hold is replaced, and a digest then keeps the names apart.
    """
    here = identity(plain(config))
    variant = _file_name(method_name(config.method))
    if here["rank"] is not None:
        variant += "-" + _file_name(here["rank"])
    changed = _changes(plain(config), plain(baseline))
    other = {key: value for key, (value, _) in changed.items() if key not in _IN_PATH}
    if isinstance(layers := other.get("method.layers"), OrderedDict):
        other["method.layers"] = list(layers.items())
    if other:
        variant += "-" + _digest(json.dumps(other, sort_keys=True, default=repr))
    if isinstance(config.seed, bool) or not isinstance(config.seed, int):
        raise ConfigError(f"seed={config.seed!r} is not a whole number; use for example seed=0")
    folder = Path(config.results_dir) / "runs" / _file_name(dataset_name(config)) / _file_name(arch_name(config))
    return folder / variant / f"seed{config.seed}"


@cache  # thousands of runs are read with the same defaults
def _defaults() -> dict[str, Any]:
    return plain(TrainConfig())


@cache
def _dense_method() -> dict[str, Any]:
    values: dict[str, Any] = plain(TrainConfig(method=MethodConfig(BASELINE)))["method"]
    return values


def all_dense(method: Mapping[str, Any]) -> bool:
    """Whether a method, its fields by their names, holds no layer as cores."""
    formats = {method[kind] or method["format"] for kind in ("format", "conv", "linear")}
    formats |= {layer["format"] for layer in method["layers"].values() if isinstance(layer, dict) and "format" in layer}
    return formats == {BASELINE}


def _own_or(target: dict[str, Any], name: str) -> str:
    return str(target["_target_"]) if "_target_" in target else name


class _Null:
    """A user's argument that is null, which is another than none."""

    def __str__(self) -> str:
        return "null"

    def __repr__(self) -> str:
        return "<null>"


_NULL = _Null()


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    free = prefix.startswith(_FREE)
    if free and value is None:
        return {prefix: _NULL}
    if not isinstance(value, dict) or prefix == "method.layers" or (free and not value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f'"{key}"' if "." in str(key) else key
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else name)
    return flat


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _file_name(text: str) -> str:
    # "params:120000" reads well as "params-120000"; anything else that changes gets a digest, so that no two meet.
    wanted = text.replace(":", "-")
    safe = re.sub(r"[^A-Za-z0-9_.+=-]", "-", wanted)[:80].lstrip(".-")
    return safe if safe and safe == wanted else f"{safe}-{_digest(text)}".lstrip("-")
