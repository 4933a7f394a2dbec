"""The weights that a file of anyone's holds, under the names that a model has for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...device.archive import Damaged, read
from ...device.files import RunError
from ...tensor.errors import ConfigError
from ...tensor.weight import place

PARTS = (
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    *("model.safetensors", "pytorch_model.bin"),
)
"""What a folder of weights holds: an index that says which of several files holds which weight, or a single file."""
_KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights"),
    *("model_ema", "ema_state_dict", "state_dict_ema", "ema"),
)
"""Under which training scripts keep a state_dict, averages of the weights last."""
_PREFIXES = ("module.", "model.", "net.", "network.")
_EXTRA = "_extra_state"
"""How the names end of what modules add to their state, of any type."""
_COMPILED = "_orig_mod."  # of torch.compile, in front of any module
_log = logging.getLogger("tdcompress")


@dataclass(frozen=True)
class StateDict:
    """What a file holds: ``tensors`` as ``state_dict`` gives them, and the ``metadata`` of a .safetensors file.

    ``said``: what was taken of the file, and what was left out of its names, a line each.
    """

    source: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def named_as(self, model: nn.Module) -> StateDict:
        """The same without prefixes that wrappers put in front of the names of ``model``, those of submodules too.

        Of submodules that torch has compiled the names are as they are in ``model``.
        """
        names = {key.replace(_COMPILED, ""): key for key in model.state_dict()}
        tensors = {key.replace(_COMPILED, ""): value for key, value in self.tensors.items()}
        left = [_COMPILED] if self.tensors.keys() - tensors.keys() - set(names.values()) else []
        own = {name.replace(_COMPILED, "") for name, _ in model.named_modules()} | {
            key.partition(".")[0] for key in names
        }
        while (prefix := _common(tensors)) is not None and not all(key.partition(".")[0] in own for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
            left.append(prefix)
        tensors = {names.get(key, key): value for key, value in tensors.items()}
        said = [f"names without {' and '.join(left)}"] if left else []
        types = {value.dtype for value in _tensors(model).values() if value.is_floating_point()}
        others = {value.dtype for value in tensors.values() if value.is_floating_point()} - types
        if types and others:
            told = [" and ".join(sorted(str(t).removeprefix("torch.") for t in kinds)) for kinds in (others, types)]
            said.append(f"{told[0]} as {told[1]}")
        return StateDict(self.source, tensors, self.metadata, (*self.said, *said))

    def load_into(self, model: nn.Module) -> None:
        """Give ``model`` these values, all or none.

        Raises ``ConfigError`` naming the first that is missing, does not fit, or is a parameter that is not finite.
        """
        own = _tensors(model)
        tensors = dict(self.tensors)
        places: dict[tuple[Any, ...], list[str]] = {}
        for key, value in own.items():
            places.setdefault(place(value), []).append(key)
        for keys in places.values():  # a tensor with several names may be there once
            here = next((tensors[key] for key in keys if key in tensors), None)
            tensors |= {key: here for key in keys if here is not None and key not in tensors}
        wanted, found = ({key: tuple(value.shape) for key, value in held.items()} for held in (own, tensors))
        for key in (*wanted, *found):
            if wanted.get(key) != found.get(key):
                there, at = (f"is {shapes[key]}" if key in shapes else "is missing" for shapes in (found, wanted))
                raise ConfigError(
                    f"{self.source} does not fit: {key} {there} in it and {at} in the network; "
                    "it is of another one (on the command line arch= and dataset= choose it)"
                )
        weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for key, value in own.items():
            if value.is_floating_point() and not tensors[key].is_floating_point():
                kind = str(tensors[key].dtype).removeprefix("torch.")
                raise ConfigError(f"{self.source}: {key} is of {kind}, not of floating-point numbers")
            if value.is_meta:
                raise ConfigError(f"{key} of the model is on the meta device: model.to_empty(device='cpu') before it")
            if key in weights and not tensors[key].isfinite().all():  # buffers may be other: masks and bounds
                raise ConfigError(f"{self.source}: {key} holds numbers that are not finite")
        before = [(value, value.clone()) for value in own.values()]
        state = model.state_dict()
        state.update(tensors)  # which says what version of its class each module is of, as some ask
        try:
            model.load_state_dict(state)
        except BaseException:  # anyone's code: a module may load its values as it likes
            for value, held in before:
                if not torch.equal(value, held):
                    value.copy_(held)
            raise

    def log(self) -> None:
        """Say what was taken of the file, in a line, where that is not all of it as it is."""
        if self.said:
            _log.warning("%s: %s", self.source, "; ".join(self.said))


def read_state_dict(source: str | Path) -> StateDict:
    """The weights in a file, or in the files that an index or a folder names, on the CPU.

    A ``.safetensors`` file, or what ``torch.save`` wrote of tensors and plain values: a state_dict, or one under a
    usual key. Raises ``RunError`` for what is missing, damaged or more than that, and ``ConfigError`` for values that
    are no weights, naming the first.
    """
    path = Path(source)
    if path.is_dir():
        there = [path / name for name in PARTS if (path / name).exists()]
        if not there:
            raise RunError(f"{path} holds none of {', '.join(PARTS)}")
        path = there[0]
    if not path.exists():
        raise RunError(f"there is no {path}")
    held, metadata = (_sharded(path), None) if path.name.endswith(".index.json") else _read(path)
    return state_dict_in(held, str(source), metadata)


def state_dict_in(held: Any, source: str, metadata: Mapping[str, str] | None = None) -> StateDict:
    """The weights in what was read from ``source``. Raises ``ConfigError`` as ``read_state_dict`` does."""
    tensors, said = _inner(held)
    more = [key for key in tensors if key.endswith(_EXTRA) and not isinstance(tensors[key], Tensor)]
    if more:
        said = (*said, f"without {', '.join(more)}")
        tensors = {key: value for key, value in tensors.items() if key not in more}
    if not tensors:
        raise ConfigError(f"{source} holds no state_dict: save model.state_dict() with torch.save")
    for key, value in tensors.items():
        reason = _unusable(value)
        if reason is not None:
            raise ConfigError(f"{source}: {key} {reason}")
    return StateDict(source, tensors, dict(metadata or {}), said)


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file holds, and a .safetensors file's metadata."""
    if path.suffix != ".safetensors":
        return read(path), {}
    try:
        with safe_open(path, framework="pt") as file:
            # Copied: products of tensors at addresses of any number, as they lie in a file, are rounded otherwise.
            held = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            return held, dict(file.metadata() or {})
    except SafetensorError as error:
        raise Damaged(f"{path}: damaged ({error})") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error})") from None


def _sharded(index: Path) -> dict[str, Any]:
    """The weights in the files that an index names."""
    try:
        where = json.loads(index.read_text())["weight_map"]
        names = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{index}: damaged ({error})") from None
    held: dict[str, Any] = {}
    for name in names:
        path = index.parent / name
        if path.parent != index.parent or not path.exists():
            raise RunError(f"{index}: there is no {name} beside it")
        held |= _read(path)[0]
    missing = [key for key in where if key not in held]
    if missing:
        raise RunError(f"{index}: {missing[0]} is in none of its files")
    return held


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model without what its modules add of other types."""
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def _inner(held: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The state_dict in what a file holds, and in words where it was."""
    said: list[str] = []
    while isinstance(held, Mapping) and not all(isinstance(value, Tensor) for value in held.values()):
        found = [key for key in _KEYS if isinstance(held.get(key), Mapping) and held[key]]
        if not found:
            break
        others = f", not {', '.join(found[1:])}" if found[1:] else ""
        said.append(f"its key {found[0]}{others}")
        held = held[found[0]]
    if not isinstance(held, Mapping) or not any(isinstance(value, Tensor) for value in held.values()):
        return {}, ()
    return dict(held), tuple(said)


def _common(keys: Collection[str]) -> str | None:
    return next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in keys)), None)


def _unusable(value: Any) -> str | None:
    """Why a value is no weight or buffer that a model here can have, and what to do."""
    if not isinstance(value, Tensor):
        return f"is of {type(value).__name__}, no tensor: save tensors alone, such as torch.from_numpy(value)"
    if value.layout != torch.strided:
        return "is sparse: save value.to_dense()"
    if value.is_quantized:
        return "is quantised: save value.dequantize()"
    if value.is_meta:
        return "is on the meta device, without values: save the model once its weights are loaded"
    kind = str(value.dtype).removeprefix("torch.")
    if value.is_floating_point() and value.element_size() < 2:
        return f"is of {kind}: save it times its scale as bfloat16"
    return None
