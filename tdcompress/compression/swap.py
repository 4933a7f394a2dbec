"""Walks a model and swaps its convolution and linear layers for factorised ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from fnmatch import fnmatch
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ..config.schema import MethodConfig, layer_ranks
from ..device.rates import device_rates
from ..layers.base import Factorised
from ..layers.linear import FeatureMapLinear
from ..tensor.contraction.cost import Rates
from ..tensor.contraction.search import paths
from ..tensor.errors import ConfigError
from ..tensor.fitting.initial import INITS
from ..tensor.formats import find_format
from ..tensor.rank import Budget, RankLike, parse
from .sizing import meet
from .spec import Swap, swap_for
from .trace import input_shapes

M = TypeVar("M", bound=nn.Module)
PLANNING_BATCH = 100  # images the plan is made for, where none are named


def compress(
    model: M,
    method: str | MethodConfig = "tt",
    rank: RankLike = 8,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    keep: Sequence[str] | None = None,
    batch_size: int = PLANNING_BATCH,
    rates: Rates | None = None,
    cores: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    **settings: Any,
) -> M:
    """Swap, in place, every ``Conv2d`` and ``Linear`` of ``model`` for one whose weight is held as cores.

    ``method``: a format's name, or a whole ``MethodConfig``; ``settings`` are its further fields (``layout="matrix"``,
    ``kernel="separate"``, ``plan="dense"`` ..). ``input_shape``: one input without the batch dimension; the layers that
    a forward pass of it reaches are swapped. ``keep``: name patterns of layers that stay dense; by default the first
    convolution and the last linear layer. A layer whose cores would hold no fewer entries than its weight stays dense
    too, unless ``allow_larger``. The cores start with the variance that the layer's present weight has, or, with
    ``init="fit"`` and for trained weights, as near to it as can be. Contractions are planned for batches of
    ``batch_size`` and a device of these ``rates``, by default the model's own. Cores of a frozen weight are frozen.
    Returns the model, or what takes its place if it is itself a layer.

    ``rank``: the bond dimension, a list of one for each bond of a layer, or ``"reference"``. Or what the whole network
    may cost, met to within 2 %: ``"10x"`` (dense parameters / parameters), ``"params:120000"``, ``"macs:0.2"`` (MACs /
    dense MACs, along the plans for the default rates); a layer with a rank of its own in ``layers`` keeps it, the
    others absorb. Unless a layout is given, a budget of parameters holds weights in pairs of modes (``init="fit"`` does
    not); no budget keeps square cores (``network.ranks.absorbed``). ``"adaptive:10x"``: the larger network that such a
    training starts with, see ``adaptive``. Or what the present weights need, which says something of trained ones only:
    ``"energy:0.9"``, the smallest ranks that keep this share of the squared norm at every bond, or ``"vbmf"`` (Kim et
    al. 2016). ``cores``: of an equal network, by layer and core; then the layers that it names are swapped, no others,
    and the ranks are those of its shapes.

    Raises ``ConfigError`` for unknown names, for settings that a layer cannot take, naming the layer, and for a budget
    that no ranks meet, with the smallest and the largest that can be reached.
    """
    known = {f.name for f in fields(MethodConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(sorted(known))}")
    method = MethodConfig(method, **settings) if isinstance(method, str) else replace(method, **settings)
    asked, own = parse(rank), layer_ranks(method)
    formats = [find_format(chosen) for chosen in (method.format, method.conv, method.linear) if chosen is not None]
    inputs = input_shapes(model, input_shape)
    for key, patterns in (("arch.keep", keep or ()), ("method.layers", method.layers), ("cores", cores or ())):
        lost = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in inputs)]
        if lost:
            raise ConfigError(f"{key}: no layer is named {', '.join(lost)}; there are {', '.join(inputs)}")
    kept = kept_layers(list(inputs), model, keep) if cores is None else inputs.keys() - cores.keys()
    for pattern in method.layers if cores is None else ():
        named = [name for name in inputs if fnmatch(name, pattern)]
        if kept.issuperset(named):
            raise ConfigError(f"method.layers: {', '.join(named)} stays dense; arch.keep says which layers do")
    swaps = []
    for name, given in inputs.items():
        layer = model.get_submodule(name)
        if name not in kept and isinstance(layer, nn.Conv2d | nn.Linear):
            with _naming(name):
                swap = swap_for(name, layer, given, method, asked, own, cores[name] if cores else None)
            if swap is not None:
                swaps.append(swap)
    if isinstance(asked, Budget) and cores is None and (swaps or any(format.factorised for format in formats)):
        if asked.kind == "macs":
            rates = Rates()  # ranks, and the plans that they were counted along, are the same on every machine
        meet(asked, model, swaps, inputs, batch_size)
    swapped: dict[nn.Module, Factorised] = {}
    for swap in swaps:
        with _naming(swap.name):
            if not swap.stays_dense(swap.graph):
                swapped[swap.layer] = _factorised(swap, batch_size, rates)
    for name, module in [*model.named_modules(remove_duplicate=False)]:  # a layer may be used under several names
        if module in swapped:
            if not name:
                return cast(M, swapped[module])
            model.set_submodule(name, swapped[module])
    return model


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"layer {layer}: {error}") from error


def kept_layers(names: Sequence[str], model: nn.Module, keep: Sequence[str] | None) -> set[str]:
    """The layers that stay dense: those matching a pattern, or the first convolution and the last linear layer.

    A last layer whose input is a feature map is there to be factorised.
    """
    if keep is not None:
        return {name for name in names if any(fnmatch(name, pattern) for pattern in keep)}
    layers = {name: model.get_submodule(name) for name in names}
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return {*convolutions[:1], *(name for name in linears[-1:] if not isinstance(layers[name], FeatureMapLinear))}


def _factorised(swap: Swap, batch_size: int, rates: Rates | None) -> Factorised:
    weight = swap.layer.weight.detach()
    if swap.cores is not None:
        cores = [swap.cores[core.name] for core in swap.graph.cores]
    else:
        cores = INITS[swap.method.init or swap.format.init](swap.graph, weight)
    new = swap.module([core.to(weight) for core in cores])
    new.cores.requires_grad_(swap.layer.weight.requires_grad)
    rates = rates or device_rates(weight.device, weight.dtype)
    geometry = swap.geometry(new, batch_size)
    new.use_best(partial(paths, geometry=geometry, rates=rates, plan=swap.method.plan))
    new.checkpoint = swap.method.checkpoint
    return new.train(swap.layer.training)
