"""Weights to start from: what a file holds, and whether it fits a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config.schema import TrainConfig
from ..device.archive import read
from ..device.files import RunError, write_whole
from ..layers.base import Factorised
from ..layers.kinds import weights_once
from ..results.identity import differences, identity, plain
from ..tensor.errors import ConfigError
from . import checkpoint

# Of the method, what may change from one training to the next: the rest decides which cores there are.
_FREE = ("init", "decay", "plan", "checkpoint", "allow_larger", "rank_multiple")


@dataclass(frozen=True)
class Weights:
    """What a file holds: ``state`` as ``state_dict`` gives it, and the plain ``config`` saved with it, if there was."""

    source: str
    state: dict[str, Tensor]
    config: dict[str, Any] | None

    @property
    def cores(self) -> dict[str, dict[str, Tensor]]:
        """The cores of each factorised layer, by the layer's name; of a dense network none."""
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in self.state.items():
            layer, is_core, name = key.rpartition(".cores.")
            if is_core:
                found.setdefault(layer, {})[name] = value
        return found

    def load_into(self, model: nn.Module) -> None:
        """Give ``model`` these values. Raises ``ConfigError`` naming the first that is missing or does not fit."""
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        found = {key: tuple(value.shape) for key, value in self.state.items()}
        for key in (*wanted, *found):
            if wanted.get(key) != found.get(key):
                there, here = (f"is {shapes[key]}" if key in shapes else "is missing" for shapes in (found, wanted))
                raise ConfigError(
                    f"{self.source} does not fit: {key} {there} in it and {here} in the network; "
                    "choose the arch and dataset that it was trained with"
                )
        for key, value in model.state_dict().items():
            if value.is_floating_point() and not self.state[key].is_floating_point():
                kind = str(self.state[key].dtype).removeprefix("torch.")
                raise ConfigError(f"{self.source}: {key} is of {kind}, not of floating-point numbers")
        model.load_state_dict(self.state)

    def refuse_factorised(self) -> None:
        """Raise ``ConfigError`` unless these are a dense network's."""
        if self.cores:
            layer = next(iter(self.cores))
            raise ConfigError(f"{self.source} is of a factorised network (layer {layer}); choose a dense one's")

    def refuse_other(self, config: TrainConfig) -> None:
        """Raise ``ConfigError`` if these cores are of another method or rank than ``config`` asks for."""
        if self.config is None:
            return
        there, asked = (
            {key: values[key] for key in ("method", "rank")}
            for values in (identity(self.config), identity(plain(config)))
        )
        for key, (found, wanted) in differences(there, asked).items():
            if key.removeprefix("method.") not in _FREE:
                raise ConfigError(
                    f"init_from={self.source} was made with {key}={found}, not {wanted}; leave method and rank to it"
                )


def read_weights(source: str) -> Weights:
    """The weights in a run's directory, a file of ``tdc compress``, or a file of a ``state_dict``, on the CPU.

    Of a run those that ``checkpoint.chosen`` says.

    Raises ``RunError`` for what is missing, damaged or more than tensors and plain values, and ``ConfigError`` for a
    file that holds no weights, or some that are not finite.
    """
    path = Path(source)
    path = path / checkpoint.NAME if path.is_dir() else path
    if not path.exists():
        raise RunError(f"init_from={source}: there is no {path}; name a run's directory or a file of weights")
    held: Any = read(path)
    config = None
    if isinstance(held, dict) and isinstance(held.get("config"), dict):
        held = checkpoint.chosen(checkpoint.upgraded(held, path))
        held, config = held.get("model"), held["config"]
    elif isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise ConfigError(f"init_from={source} holds no state_dict: save model.state_dict() with torch.save")
    for key, value in held.items():
        if not value.isfinite().all():
            raise ConfigError(f"init_from={source}: {key} holds numbers that are not finite")
    return Weights(source, held, config)


def write_compressed(path: Path, model: nn.Module, config: TrainConfig) -> None:
    """Write a decomposed network where ``init_from`` can read it, whole or not at all.

    Raises ``ConfigError`` where nothing was decomposed, ``RunError`` where it cannot be written.
    """
    if not any(isinstance(layer, Factorised) for layer in model.modules()):
        raise ConfigError(
            f"no layer is smaller with method={config.method.format} at rank={config.rank}, so none was decomposed; "
            "choose another method, a smaller rank, or method.allow_larger=true"
        )
    state = {"config": plain(config), "model": model.state_dict()}
    write_whole(path, lambda file: torch.save(state, file))


def layer_errors(model: nn.Module, weights: Weights) -> dict[str, float]:
    """||W - What|| / ||W|| of each factorised layer, W among the dense ``weights``; under "" that of all together."""
    lost, whole, found, once = 0.0, 0.0, dict[str, float](), weights_once(model)
    for name, layer in model.named_modules():
        if isinstance(layer, Factorised):
            weight = weights.state[f"{name}.weight"].double()
            norm, error = float(weight.norm()), float((layer.to_dense().detach().cpu().double() - weight).norm())
            if name in once:
                lost, whole = lost + error**2, whole + norm**2
            found[name] = error / norm if error > 0 else 0.0
    return found | {"": (lost / whole) ** 0.5 if lost > 0 else 0.0}
