"""``method.layers``: what single layers have otherwise than the rest of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import cast

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
            try:
                schema = OmegaConf.structured(replace(method, layers={}))  # which may hold ranks, that it cannot
                method = cast(MethodConfig, OmegaConf.to_object(OmegaConf.merge(schema, changes)))
            except OmegaConfBaseException as error:
                raise ConfigError(said(f"method.layers.{pattern}.{error.full_key}", str(error))) from None
    return method, rank
