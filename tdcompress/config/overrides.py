"""``method.layers``: what single layers have otherwise than the rest of the network."""

from __future__ import annotations

from dataclasses import fields
from fnmatch import fnmatch
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..tensor.errors import ConfigError
from ..tensor.rank import parse_budget, parse_rank
from .keys import unknown
from .schema import MethodConfig

# A single layer has no others of its own.
_KEYS = [field.name for field in fields(MethodConfig) if field.name not in ("layers", "conv", "linear", "decay")]


def for_layer(name: str, method: MethodConfig, rank: int | str) -> tuple[MethodConfig, int | str]:
    """The method and rank of one layer, after the overrides of ``method.layers`` whose pattern its name matches.

    Raises ``ConfigError`` for an unknown key, for a value of another type, and for a budget: that is the network's.
    """
    for pattern, changes in method.layers.items():
        if fnmatch(name, pattern):
            if not isinstance(changes, dict):
                raise ConfigError(f"method.layers.{pattern}={changes} is not like {{rank: 4}}")
            changes = dict(changes)
            if "rank" in changes:
                rank = parse_rank(changes.pop("rank"))
                if parse_budget(str(rank)) is not None:
                    raise ConfigError(f"rank={rank} is a budget of the whole network, a layer's own is a whole number")
            for key in changes:
                if key not in _KEYS:
                    raise ConfigError(unknown(str(key), ["rank", *_KEYS], f"method.layers.{pattern}"))
            if "format" in changes:
                changes |= {"conv": None, "linear": None}
            try:
                method = cast(MethodConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(method), changes)))
            except OmegaConfBaseException as error:
                raise ConfigError(f"method.layers.{pattern}.{error.full_key}: {str(error).splitlines()[0]}") from None
    return method, rank
