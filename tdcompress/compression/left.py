"""Which layers of a model stay dense, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatch

import torch
from torch import nn

from ..layers.base import Factorised
from ..layers.kinds import kind_by_class, kind_of, why_not
from ..layers.parted import Parted


def left_dense(names: Sequence[str], model: nn.Module, keep: Sequence[str] | None) -> dict[str, str]:
    """Which of the layers stay dense, and why.

    Those whose names match a pattern of ``keep``; by default the first convolution, and the last linear layer unless
    its kind says that it is there to be held as cores. Those that cannot be held, see ``kinds.why_not``. And those that
    share their weight with another module, because cores would part them.
    """
    layers = {name: model.get_submodule(name) for name in names}
    found: dict[str, str] = {}
    if keep is not None:
        named = [name for alias, name in aliases(model, names).items() if any(fnmatch(alias, key) for key in keep)]
        found = dict.fromkeys(named, "kept")
    else:
        kinds = {name: kind for name, layer in layers.items() if (kind := kind_by_class(layer)) is not None}
        convolutions = [name for name, kind in kinds.items() if kind.weights[0].axes]
        linears = [name for name, kind in kinds.items() if not kind.weights[0].axes]
        found |= dict.fromkeys(convolutions[:1], "kept: the first convolution")
        found |= {name: "kept: the last linear layer" for name in linears[-1:] if not kinds[name].may_end}
    owned = [
        (name, tensor.untyped_storage()._cdata, *_extent(tensor))
        for name, module in model.named_modules()
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]
    for name, layer in layers.items():
        kind = kind_of(layer)
        if isinstance(layer, Factorised):
            found[name] = "it holds cores already"
        elif kind is None:
            found[name] = str(why_not(layer))
        elif name not in found:
            weight = kind.weight(layer)
            storage, (start, end) = weight.untyped_storage()._cdata, _extent(weight)
            others = {owner for owner, where, a, b in owned if where == storage and a < end and start < b} - {name}
            if others:
                found[name] = f"its weight is also that of {', '.join(sorted(others)) or 'the model itself'}"
    return found


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage between which a tensor lies."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start, width = int(tensor.storage_offset()), tensor.element_size()
    return start * width, (start + int(last) + 1) * width if tensor.numel() else start * width


def aliases(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """From every name of these layers, of which one that is used in several places has several, to the first."""
    first = {model.get_submodule(name): name for name in names}
    return {name: first[layer] for name, layer in model.named_modules(remove_duplicate=False) if layer in first}


def of_parts(model: nn.Module, known: Collection[str], pattern: str) -> list[str]:
    """A name pattern that is only that of layers with several weights as patterns of these; any other as it is."""
    if any(fnmatch(name, pattern) for name in known):
        return [pattern]
    wholes = (name for name, layer in model.named_modules(remove_duplicate=False) if isinstance(layer, Parted))
    found = [f"{name}.*" for name in wholes if fnmatch(name, pattern)]
    return [new for new in found if any(fnmatch(name, new) for name in known)] or [pattern]
