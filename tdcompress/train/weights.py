"""Weights to start from: what a file holds, and whether it fits a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..compression.files.cores import save
from ..compression.files.metadata import described
from ..compression.files.state_dicts import PARTS, StateDict, read_state_dict, state_dict_in
from ..config.schema import TrainConfig
from ..device.archive import read
from ..device.files import RunError, write_whole
from ..layers.base import Factorised
from ..layers.kinds import weights_once
from ..results.identity import as_word, differences, identity, plain
from ..results.record import read_summary
from ..tensor.errors import ConfigError
from ..tensor.rank import reached
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
    def digest(self) -> str:
        """Tells these weights from all others."""
        found = hashlib.sha256()
        for name, value in sorted(self.state.items()):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]

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
        StateDict(self.source, self.state).load_into(model)

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
            for values in (identity(self.config | {"rank": reached(self.config["rank"])}), identity(plain(config)))
        )
        for key, (found, wanted) in differences(there, asked).items():
            if key.removeprefix("method.") not in _FREE:
                raise ConfigError(
                    f"init_from={self.source} was made with {key}={as_word(found)}, not {as_word(wanted)}; "
                    "leave method and rank to it"
                )


def read_weights(source: str, model: nn.Module | None = None) -> Weights:
    """The weights in a run's directory, a file of ``tdc compress``, or anyone's, see ``read_state_dict``, on the CPU.

    Of a run those that ``checkpoint.chosen`` says. With the names that ``model`` has for them, where wrappers added to
    those; what is left out of a file is logged.

    Raises ``RunError`` for what is missing, damaged or more than tensors and plain values, and ``ConfigError`` for a
    file that holds no weights, or some that are not finite.
    """
    path = Path(source)
    if path.is_dir() and not any((path / name).exists() for name in PARTS):
        path = path / checkpoint.NAME
    if not path.exists() and read_summary(path.parent) is not None:
        raise RunError(f"init_from={source}: {checkpoint.why_none(path.parent)}")
    if not path.exists():
        raise RunError(f"init_from={source}: there is no {path}; name a run's directory or a file of weights")
    try:
        if not path.is_file() or path.name.endswith((".safetensors", ".index.json")):
            found = read_state_dict(path)
            said = described(found)
            return replace(_of(found, model), config=said.config if said is not None else None)
        held = read(path)
        if isinstance(held, dict) and isinstance(held.get("config"), dict) and isinstance(held.get("model"), dict):
            config, held = held["config"], checkpoint.chosen(checkpoint.upgraded(held, path))["model"]
            return replace(_of(state_dict_in(held, source), model), config=config)
        return _of(state_dict_in(held, source), model)
    except ConfigError as error:
        raise type(error)(f"init_from={error}") from None


def _of(found: StateDict, model: nn.Module | None) -> Weights:
    if model is not None:
        found = found.named_as(model)
        found.log()
    return Weights(found.source, found.tensors, None)


def write_compressed(path: Path, model: nn.Module, config: TrainConfig) -> None:
    """Write a decomposed network where ``init_from`` can read it, whole or not at all.

    Raises ``ConfigError`` where nothing was decomposed, ``RunError`` where it cannot be written.
    """
    if not any(isinstance(layer, Factorised) for layer in model.modules()):
        raise ConfigError(
            f"no layer is smaller with method={config.method.format} at rank={config.rank}, so none was decomposed; "
            "choose another method, a smaller rank, or method.allow_larger=true"
        )
    if path.suffix == ".safetensors":
        save(model, path, plain(config))
        return
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
