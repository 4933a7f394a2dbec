"""Which torch layers can be held as cores, and how: the one table that everything else asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..tensor.errors import ConfigError
from ..tensor.graph import Graph
from .base import Factorised, Planner
from .conv import FactorisedConv, FactorisedConvSame, FactorisedConvTranspose
from .embedding import FactorisedEmbedding
from .linear import FactorisedConv1D, FactorisedLinear, FeatureMapLinear, StepLinear
from .parted.attention import PartedAttention
from .parted.base import Parted, child_name
from .parted.recurrent import PartedGRU, PartedLSTM, PartedRNN


@dataclass(frozen=True)
class Weight:
    """A weight of a layer, ``(out, in, [[kd,] kh,] kw)``.

    ``name``: the layer's attribute; ``axes``: how many of its axes are those of a kernel that moves over the input;
    ``transposed``: the layer has it as ``(in, out, ..)``, and the cores are those of the weight with its first two axes
    swapped; ``sites``: from the layer to the mode sizes that it has anyway (keys of ``tensor.build.build``), where it
    has some.
    """

    name: str = "weight"
    axes: int = 0
    transposed: bool = False
    sites: Callable[[Any], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Kind:
    """How the layers of a torch class are held as cores.

    ``factorised``: what takes a layer's place, made as ``Factorised`` is. ``weights``: those held as cores, one so far;
    ``bias``: the attribute that stays as it is. ``once``: what is merged of the cores is merged once for all the inputs
    of a pass. ``refused``: why a layer with its settings cannot be held. ``may_end``: a network's last layer is of
    interest too, not only a classifier.
    """

    factorised: type[Factorised]
    weights: tuple[Weight, ...] = (Weight(),)
    bias: str = "bias"
    once: bool = False
    may_end: bool = False
    refused: Callable[[Any], str | None] = lambda layer: None

    @property
    def name(self) -> str:
        """What reports and settings call it."""
        return "convolution" if self.weights[0].axes else "embedding" if self.factorised.lookup else "linear"

    def weight(self, layer: nn.Module) -> Tensor:
        """The layer's weight, as the layer has it."""
        found = getattr(layer, self.weights[0].name)
        assert isinstance(found, Tensor)
        return found

    def outputs_first(self, layer: nn.Module) -> Tensor:
        """The layer's weight as cores are made of it, ``(out, in, ..)``."""
        weight = self.weight(layer).detach()
        return weight.transpose(0, 1) if self.weights[0].transposed else weight

    def held(
        self, layer: nn.Module, format: str, graph: Graph, cores: Sequence[Tensor], planner: Planner
    ) -> Factorised:
        """What takes the layer's place, its weight held as these cores of ``graph``."""
        bias, weight_shape = getattr(layer, self.bias, None), self.weight(layer).shape
        new = self.factorised(format, graph, weight_shape, cores, bias, planner, layer)
        new.transposed = self.weights[0].transposed
        return new


def _feature_map(layer: FeatureMapLinear) -> dict[str, Any]:
    sides = [size for size in layer.feature_map if size > 1]  # a map of one pixel has channels only
    return {"layout": "split", "in_modes": sides or [1], "out_modes": [layer.out_features]}


def _embedding_refused(layer: nn.Embedding) -> str | None:
    names = [name for name in ("max_norm", "sparse", "scale_grad_by_freq") if getattr(layer, name)]
    return f"{' and '.join(names)} cannot be had of cores" if names else None


KINDS: dict[type[nn.Module], Kind] = {
    nn.Conv1d: Kind(FactorisedConv, (Weight(axes=1),)),
    nn.Conv2d: Kind(FactorisedConv, (Weight(axes=2),)),
    nn.Conv3d: Kind(FactorisedConv, (Weight(axes=3),)),
    nn.ConvTranspose1d: Kind(FactorisedConvTranspose, (Weight(axes=1, transposed=True),)),
    nn.ConvTranspose2d: Kind(FactorisedConvTranspose, (Weight(axes=2, transposed=True),)),
    nn.ConvTranspose3d: Kind(FactorisedConvTranspose, (Weight(axes=3, transposed=True),)),
    nn.Linear: Kind(FactorisedLinear),
    FeatureMapLinear: Kind(FactorisedLinear, (Weight(sites=_feature_map),), may_end=True),
    StepLinear: Kind(FactorisedLinear, once=True, may_end=True),
    nn.Embedding: Kind(FactorisedEmbedding, refused=_embedding_refused),
}
"""By class. A subclass that changes nothing of how its class computes counts as it; see ``why_not``."""

ELSEWHERE: dict[str, Kind] = {
    "transformers.pytorch_utils.Conv1D": Kind(FactorisedConv1D, (Weight(transposed=True),)),
    "timm.layers.linear.Linear": Kind(FactorisedLinear),  # torch's, but in TorchScript
    "timm.layers.conv2d_same.Conv2dSame": Kind(FactorisedConvSame, (Weight(axes=2),)),
}
"""The same for classes of packages that need not be installed, by their full names."""

PARTED: dict[type[nn.Module], type[Parted]] = {
    nn.LSTM: PartedLSTM,
    nn.GRU: PartedGRU,
    nn.RNN: PartedRNN,
    nn.MultiheadAttention: PartedAttention,
}
"""What stands for a layer with several weights, each of them a layer in ``KINDS``, while some of them are cores."""

_COMPUTING = (
    (WeightNorm, "weight norm", "remove_weight_norm(layer)"),
    (SpectralNorm, "spectral norm", "remove_spectral_norm(layer)"),
    (BasePruningMethod, "pruning", "prune.remove(layer, 'weight')"),
)
"""Torch's hooks that compute a weight whenever a layer is called, and what removes them."""

_FREE = {"__init__", "extra_repr", "reset_parameters"}
_ANY_CLASS = set(vars(type("_", (nn.Module,), {"__annotations__": {}}))) | {
    *("__module__", "__qualname__", "__doc__", "__annotations__", "__annotate_func__", "__annotate__"),
    *("__firstlineno__", "__static_attributes__", "__constants__", "__parameters__", "__orig_bases__"),
}


def hold(cls: type[nn.Module], kind: type[nn.Module] | Kind) -> None:
    """Hold layers of class ``cls`` as those of another class here are, or as a ``Kind`` of your own says.

    For a subclass whose own ``forward`` computes what its torch class computes. Raises ``ConfigError`` for a class that
    is none of torch's modules, or has no kind.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ConfigError(f"hold takes a subclass of torch.nn.Module, got {cls!r}")
    if isinstance(kind, Kind):
        KINDS[cls] = kind
    elif kind in PARTED:
        PARTED[cls] = PARTED[kind]
    elif kind in KINDS:
        KINDS[cls] = KINDS[kind]
    else:
        known = ", ".join(known.__name__ for known in (*KINDS, *PARTED))
        raise ConfigError(f"{getattr(kind, '__name__', kind)} cannot be held as cores, known: {known}")


def kind_of(layer: nn.Module) -> Kind | None:
    """How this layer is held as cores; None where it cannot be, and ``why_not`` says why."""
    return None if why_not(layer) else kind_by_class(layer)


def kind_by_class(layer: nn.Module) -> Kind | None:
    """The kind of the first of the layer's classes that has one, whatever the layer computes."""
    found = _known(type(layer))
    return None if found is None or found in PARTED else _kind(found)


def why_not(layer: nn.Module) -> str | None:
    """Why a layer cannot be held as cores, None where it can be.

    A class that is not in ``KINDS``; one that redefines an attribute of its class there but ``__init__``,
    ``extra_repr`` and ``reset_parameters``, as the layer itself may do, and may then compute something else; and a
    weight that is computed from others whenever the layer is called. A layer with a single weight that has parameters,
    buffers or children besides, which would be lost.
    """
    name, base = type(layer).__name__, _known(type(layer))
    if base is None:
        return f"{name} cannot be held as cores"
    weights = PARTED[base].weights(layer) if base in PARTED else [weight.name for weight in _kind(base).weights]
    if computed := [weight for weight in weights if layer._parameters.get(weight) is None]:
        return _computed(layer, computed[0])
    attributes = {name for cls in base.__mro__ for name in (*vars(cls), *vars(cls).get("__annotations__", ()))}
    others = [cls for cls in type(layer).__mro__ if cls not in base.__mro__]  # behind it, too: ``super`` gets there
    for cls in others:
        changed = sorted((set(vars(cls)) - _FREE - _ANY_CLASS) & attributes)
        if changed:
            return f"{name} redefines {', '.join(changed)} of {base.__name__}"
    own = sorted(key for key, value in vars(layer).items() if callable(getattr(base, key, None)) and callable(value))
    if own:
        return f"this {name} has {', '.join(own)} of its own"
    if any(_watched(layer._parameters[weight]) for weight in weights):
        return "hooks are registered on its weight"
    return None if base in PARTED else _more(layer, _kind(base)) or _kind(base).refused(layer)


def _watched(weight: Any) -> bool:
    """Whether someone is told of the gradients of a weight, which cores would not have."""
    return bool(weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None))


def _more(layer: nn.Module, kind: Kind) -> str | None:
    """What a layer has besides the weight that is held as cores, and a bias; None for nothing."""
    held = {*(weight.name for weight in kind.weights), kind.bias}
    further: dict[str, Any] = {name: value for name, value in layer._parameters.items() if name not in held}
    further |= {**layer._buffers, **layer._modules}
    more = sorted(name for name, value in further.items() if value is not None)
    return f"this {type(layer).__name__} has {', '.join(more)} besides" if more else None


def _computed(layer: nn.Module, weight: str) -> str:
    """Why a weight is no parameter, and the call that makes it one again."""
    if parametrize.is_parametrized(layer, weight):
        return f"its {weight} is parametrised: torch.nn.utils.parametrize.remove_parametrizations(layer, '{weight}')"
    for hook in layer._forward_pre_hooks.values():
        for kind, said, call in _COMPUTING:
            if isinstance(hook, kind):
                return f"its {weight} is computed by {said}: torch.nn.utils.{call}"
    return f"its {weight} is computed from other parameters"


def parted_by(layer: nn.Module) -> type[Parted] | None:
    """What would stand for a torch layer with several weights; None for what is none, or must stay as it is."""
    base = None if isinstance(layer, Parted) or why_not(layer) else _known(type(layer))
    return None if base is None else PARTED.get(base)


def _known(cls: type[nn.Module]) -> type[nn.Module] | None:
    known = PARTED.keys() | KINDS.keys()
    return next((base for base in cls.__mro__ if base in known or _full_name(base) in ELSEWHERE), None)


def dense_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that can be held as cores, by the name that their layer has, or would have once it holds them."""
    found: dict[str, Any] = {}
    for name, layer in model.named_modules():
        kind, parted = kind_of(layer), parted_by(layer)
        if kind is not None:
            found[name] = kind.weight(layer)
        for weight in parted.weights(layer) if parted is not None else ():
            found[f"{name}.{child_name(weight)}".lstrip(".")] = layer._parameters[weight]
    return {name: weight for name, weight in found.items() if isinstance(weight, nn.Parameter)}


def _kind(known: type[nn.Module]) -> Kind:
    return KINDS[known] if known in KINDS else ELSEWHERE[_full_name(known)]


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def factorised(model: nn.Module) -> dict[str, Factorised]:
    """The layers of a model that hold cores, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Factorised)}


def weights_once(model: nn.Module) -> dict[str, Factorised]:
    """``factorised`` without the layers that are tied to one before them."""
    found: dict[str, Factorised] = {}
    for name, layer in factorised(model).items():
        if not any(other in layer.tied for other in found.values()):
            found[name] = layer
    return found
