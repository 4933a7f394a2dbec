"""Torchvision's classifiers, by their name there."""

from __future__ import annotations

import difflib
from typing import Any

import torchvision
from torch import nn

from ..config.schema import ArchConfig
from ..tensor.errors import ConfigError

_AUXILIARY = ("googlenet", "inception_v3")  # have further outputs while they train, unless told not to


def torchvisions(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """``config.model``, with torchvision's initial weights, without auxiliary outputs.

    Raises ``ConfigError`` for an unknown name and for images that it cannot take.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if config.model not in known:
        near = difflib.get_close_matches(config.model, known, 3) or known[:3]
        raise ConfigError(f"unknown arch.model '{config.model}', torchvision has for example {', '.join(near)}")
    if in_channels != 3:
        raise ConfigError(f"arch=torchvision: its models take images of 3 channels, not {in_channels}")
    settings: dict[str, Any] = {"num_classes": classes}
    if config.model in _AUXILIARY:
        settings |= {"aux_logits": False, "init_weights": True}
    if config.model.startswith("vit_"):
        settings |= {"image_size": image_size}
    try:
        model: nn.Module = torchvision.models.get_model(config.model, weights=None, **settings)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"arch.model={config.model}: {error}") from error
    return model
