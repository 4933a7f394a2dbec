"""Which layers of a model stay dense, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch

from torch import nn

from ..layers.base import Factorised
from ..layers.kinds import kind_by_class, kind_of, why_not
from ..layers.parted.base import Parted
from ..tensor.weight import extent, memory


def left_dense(
    names: Sequence[str],
    model: nn.Module,
    keep: Sequence[str] | None,
    by_macs: bool = False,
    read: Collection[str] = (),
    written: Collection[str] = (),
    heavy: Collection[str] = (),
) -> dict[str, str]:
    """Which of the layers stay dense, and why.

    Those whose names match a pattern of ``keep``; by default the first convolution and the last linear layer, but for
    ``heavy`` ones, and unless its kind says that it is there to be held as cores or its weight is also another's. Those
    that cannot be held, see ``kinds.why_not``. And those that share their weight with another module, because cores
    would part them, unless it is one parameter of several of the layers, none of which stays dense: see ``ties``.
    ``by_macs``: what is to be saved are MACs, of which a lookup has none; layers that share a weight have different
    ones, and a weight that is ``read`` without calling its layer is put together. What is ``written`` to a weight while
    the model computes, cores would not keep.
    """
    layers = {name: model.get_submodule(name) for name in names}
    shares = _shares(layers, model)
    found: dict[str, str] = {}
    if keep is not None:
        named = [name for alias, name in aliases(model, names).items() if any(fnmatch(alias, key) for key in keep)]
        found = dict.fromkeys(named, "kept")
    else:
        kinds = {name: kind for name, layer in layers.items() if (kind := kind_by_class(layer)) is not None}
        convolutions = [name for name, kind in kinds.items() if kind.weights[0].axes]
        linears = [name for name, kind in kinds.items() if kind.name == "linear"]
        found |= {name: "kept: the first convolution" for name in convolutions[:1] if name not in heavy}
        found |= {
            name: "kept: the last linear layer"
            for name in linears[-1:]
            if not (kinds[name].may_end or shares[name] or name in heavy)
        }
    for name, layer in layers.items():
        kind = kind_of(layer)
        if isinstance(layer, Factorised):
            found[name] = "it holds cores already"
        elif kind is None:
            found[name] = str(why_not(layer))
        elif name in written:
            found.setdefault(name, "the model writes to its weight while it computes, which cores do not keep")
        elif by_macs and kind.name == "embedding":
            found.setdefault(name, "a lookup has no MACs that could be saved")
        elif by_macs and name in read:
            found.setdefault(name, "its weight is used without calling it, which saves no MACs")
    parted = {name for name, others in shares.items() if others and (by_macs or not _tied(name, others, layers))}
    for name, others in shares.items():
        if name in parted or others & found.keys():
            said = ", ".join(sorted(other or "the model itself" for other in others))
            found.setdefault(name, f"its weight is also that of {said}")
    return found


def ties(names: Sequence[str], model: nn.Module) -> dict[str, str]:
    """From the names of layers that can be held to the first of them that has the same parameter as its weight."""
    first: dict[int, str] = {}
    found = {}
    for name in names:
        layer = model.get_submodule(name)
        kind = kind_of(layer)
        if kind is not None:
            found[name] = first.setdefault(id(kind.weight(layer)), name)
    return found


def _tied(name: str, others: Collection[str], layers: Mapping[str, nn.Module]) -> bool:
    """Whether all of ``others`` are layers with the same parameter as their weight, outputs first in all or in none."""
    kinds = {one: kind_of(layers[one]) for one in (name, *others) if one in layers}
    weights = {
        (id(kind.weight(layers[one])), kind.weights[0].transposed) for one, kind in kinds.items() if kind is not None
    }
    return len(kinds) == 1 + len(others) and None not in kinds.values() and len(weights) == 1


def _shares(layers: Mapping[str, nn.Module], model: nn.Module) -> dict[str, set[str]]:
    """For each layer the other modules in whose parameters or buffers its weight lies, all or some of it."""
    owned = [
        (name, memory(tensor), *extent(tensor))
        for name, module in model.named_modules()
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    ]
    found = {}
    for name, layer in layers.items():
        found[name] = set[str]()
        kind = kind_of(layer)
        if kind is not None:
            weight = kind.weight(layer)
            storage, (start, end) = memory(weight), extent(weight)
            found[name] = {owner for owner, where, a, b in owned if where == storage and a < end and start < b} - {name}
    return found


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
