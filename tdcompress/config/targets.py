"""Code that is named by its dotted path, a user's own by ``_target_`` in the configuration."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..tensor.errors import ConfigError


def find_target(path: Any, key: str) -> Callable[..., Any]:
    """The object at a dotted path. Raises ``ConfigError`` naming the configuration's ``key``."""
    module, _, name = str(path or "").rpartition(".")
    if not module:
        raise ConfigError(f"{key} needs a _target_ such as package.module.name")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where the user's own code lies: an installed command does not look there
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_={path} cannot be imported: {error}") from None
    return found


def call_target(values: Mapping[str, Any], key: str, **more: Any) -> Any:
    """Call ``values["_target_"]`` with the other values and ``more`` as keyword arguments."""
    options = {name: value for name, value in values.items() if name != "_target_"}
    target = find_target(values.get("_target_"), key)
    try:
        return target(**options, **more)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from None


def arguments(path: Any, key: str) -> dict[str, bool] | None:
    """What the object at a dotted path takes behind its first argument, and whether it needs it.

    None where it takes anything, or does not say. Raises ``ConfigError`` as ``find_target`` does.
    """
    target = find_target(path, key)
    try:
        taken = list(inspect.signature(target).parameters.values())[1:]
    except ValueError:  # not written in Python
        return None
    if any(one.kind is one.VAR_KEYWORD for one in taken):
        return None
    return {one.name: one.default is one.empty for one in taken if one.kind is not one.VAR_POSITIONAL}


@dataclass(frozen=True)
class Target:
    """The function at a dotted path, imported when it is first called: a table of these imports nothing of theirs."""

    path: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name)(*arguments, **options)
