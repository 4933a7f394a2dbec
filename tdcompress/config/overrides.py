"""``method.layers``: what single layers have otherwise than the rest of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..tensor.errors import ConfigError
from ..tensor.rank import LayerRank, Rank
from .schema import MethodConfig
from .values import said


def for_layer(name: str, method: MethodConfig, rank: Rank, own: Mapping[str, LayerRank]) -> tuple[MethodConfig, Rank]:
    """The method and rank of one layer, after the overrides of ``method.layers`` whose pattern its name matches.

    ``own``: the ranks among them, by pattern (see ``layer_ranks``). Raises ``ConfigError`` for a value of another type.
    """
    for pattern, changes in method.layers.items():
        if fnmatch(name, pattern):
            rank = own.get(pattern, rank)
            changes = {key: value for key, value in changes.items() if key != "rank"}
            if "format" in changes:
                changes |= {"conv": None, "linear": None}
            method = changed(method, changes, f"method.layers.{pattern}.")
    return method, rank


def changed(method: MethodConfig, changes: Mapping[str, Any], place: str) -> MethodConfig:
    """``method`` with other values of these fields, and without ``layers``.

    Raises ``ConfigError`` for a value of another type, whose key it gives behind ``place``.
    """
    plain = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in changes.items()}
    try:
        schema = OmegaConf.structured(replace(method, layers={}))  # which may hold ranks, that it cannot
        return cast(MethodConfig, OmegaConf.to_object(OmegaConf.merge(schema, plain)))
    except OmegaConfBaseException as error:
        raise ConfigError(said(f"{place}{error.full_key}", str(error))) from None
