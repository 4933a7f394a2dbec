"""Walks a model and swaps its convolution and linear layers for factorised ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from torch import nn

from .config import KERNELS, ConfigError, MethodConfig, parse_rank
from .formats import FORMATS, Format, find_format
from .layers import Factorised, FactorisedConv2d, FactorisedLinear
from .network.cost import Rates
from .network.graph import Graph, validate
from .network.init import INITS
from .network.layout import arrange
from .network.measure import device_rates
from .network.path import PLANS, Geometry, Path, paths
from .network.ranks import capped

PLANNING_BATCH = 100  # images the plan is made for, where none are named


def compress(
    model: nn.Module,
    method: str | MethodConfig = "tt",
    rank: int | str = 8,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    keep: Sequence[str] | None = None,
    batch_size: int = PLANNING_BATCH,
    rates: Rates | None = None,
    **settings: Any,
) -> nn.Module:
    """Swap, in place, every ``Conv2d`` and ``Linear`` of ``model`` for one whose weight is held as cores.

    ``method``: a format's name, or a whole ``MethodConfig``; ``settings`` are its further fields (``layout="matrix"``,
    ``kernel="separate"``, ``plan="dense"`` ..). ``rank``: the bond dimension, or ``"reference"``. ``input_shape``: one
    input without the batch dimension; the layers that a forward pass of it reaches are swapped. ``keep``: name
    patterns of layers that stay dense; by default the first convolution and the last linear layer. A layer whose cores
    would hold no fewer entries than its weight stays dense too, unless ``allow_larger``. The cores start with the
    variance that the layer's present weight has. Contractions are planned for batches of ``batch_size`` and a device of
    these ``rates``, by default the model's own. Returns the model.

    Raises ``ConfigError`` for unknown names and for settings that a layer cannot take, naming the layer.
    """
    if isinstance(method, str):
        known = {f.name for f in fields(MethodConfig)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(sorted(known))}")
        method = MethodConfig(format=method, **settings)
    rank = parse_rank(rank)
    for chosen in (method.format, method.conv, method.linear):
        if chosen is not None:
            find_format(chosen)
    shapes = input_shapes(model, input_shape)
    kept = kept_layers(list(shapes), model, keep)
    swapped: dict[str, Factorised] = {}
    for name, shape in shapes.items():
        layer = model.get_submodule(name)
        if name not in kept and isinstance(layer, nn.Conv2d | nn.Linear):
            try:
                new = _factorised(layer, name, method, rank, shape, batch_size, rates)
            except ConfigError as error:
                raise ConfigError(f"layer {name}: {error}") from error
            if new is not None:
                swapped[name] = new
    for name, new in swapped.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new)
    return model


def kept_layers(names: Sequence[str], model: nn.Module, keep: Sequence[str] | None) -> set[str]:
    """The layers that stay dense: those matching a pattern, or the first convolution and the last linear layer."""
    if keep is not None:
        return {name for name in names if any(fnmatch(name, pattern) for pattern in keep)}
    layers = {name: model.get_submodule(name) for name in names}
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return {*convolutions[:1], *linears[-1:]}


def input_shapes(model: nn.Module, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The input shape, for one image, of each convolution and linear layer that a forward pass reaches, in order."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        found.setdefault(name, tuple(args[0].shape))

    hooks = [
        layer.register_forward_pre_hook(partial(note, name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | Factorised)
    ]
    modes = {layer: layer.training for layer in model.modules()}
    some = next(model.parameters())
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the model cannot take an input of shape {tuple(input_shape)}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for layer, training in modes.items():
            layer.training = training
    return found


def build_graph(weight_shape: Sequence[int], format: Format, method: MethodConfig) -> Graph:
    """The format's graph for a dense weight of torch's shape, every bond at size one."""
    kernel = method.kernel or format.kernel
    if kernel not in KERNELS:
        raise ConfigError(f"unknown kernel '{kernel}', known: {', '.join(KERNELS)}")
    if kernel == "open" and not format.open_kernel and len(weight_shape) > 2:
        able = ", ".join(sorted(f.name for f in FORMATS.values() if f.open_kernel))
        raise ConfigError(f"kernel=open needs a format with a central core ({able}), {format.name} has none")
    layout = arrange(
        weight_shape, method.layout or format.layout, kernel, method.factors, method.in_modes, method.out_modes
    )
    if format.factorised and len(layout.sites) < 2:
        raise ConfigError(f"layout gives a single site, {format.name} needs two: raise factors")
    cores = tuple(format.topology(layout))
    validate(cores, layout.modes)
    bonds = {index for core in cores for index in core.indices} - set(layout.modes)
    return Graph(cores, layout.modes, {**layout.sizes, **dict.fromkeys(bonds, 1)})


def with_rank(graph: Graph, format: Format, rank: int | str, weight_shape: Sequence[int]) -> Graph:
    """The graph at the asked rank, capped. ``reference``: the reference system's, see ``Format.reference_rank``."""
    if isinstance(rank, int):
        return capped(graph, dict.fromkeys(graph.bonds, rank))
    if rank == "reference":
        channels = (weight_shape[1], weight_shape[0])
        conv = len(weight_shape) > 2
        return capped(graph, {bond: format.reference_rank(channels, bond, conv) for bond in graph.bonds})
    raise ConfigError(f"rank '{rank}' is not a whole number and not 'reference'")


def _factorised(
    layer: nn.Conv2d | nn.Linear,
    name: str,
    method: MethodConfig,
    rank: int | str,
    input_shape: tuple[int, ...],
    batch_size: int,
    rates: Rates | None,
) -> Factorised | None:
    method, rank = _for_layer(name, method, rank)
    format = find_format((method.conv if isinstance(layer, nn.Conv2d) else method.linear) or method.format)
    if not format.factorised:
        return None
    if method.init not in INITS:
        raise ConfigError(f"unknown init '{method.init}', known: {', '.join(INITS)}")
    if method.plan not in PLANS:
        raise ConfigError(f"unknown plan '{method.plan}', known: {', '.join(PLANS)}")
    weight = layer.weight.detach()
    graph = with_rank(build_graph(weight.shape, format, method), format, rank, weight.shape)
    if graph.parameters >= graph.dense_parameters and not method.allow_larger:
        return None
    cores = [core.to(weight) for core in INITS[method.init](graph, float(weight.double().square().mean()))]
    new: Factorised
    if isinstance(layer, nn.Conv2d):
        new = FactorisedConv2d(format.name, graph, cores, layer)
    else:
        new = FactorisedLinear(format.name, graph, weight.shape, cores, layer.bias)
    rates = rates or device_rates(weight.device, weight.dtype)
    new.candidates = paths(graph, layer_geometry(new, input_shape, batch_size), rates, method.plan)
    new.use(new.candidates[0])
    new.checkpoint = method.checkpoint
    return new.train(layer.training)


def layer_geometry(layer: Factorised, input_shape: tuple[int, ...], batch_size: int) -> Geometry:
    """What the planner sees of a layer whose input for one image has this shape."""
    if isinstance(layer, FactorisedConv2d):
        return layer.geometry(batch_size, *input_shape[-2:])
    rows = 1
    for size in input_shape[1:-1]:
        rows *= size
    return Geometry(batch_size * rows)


def plans(model: nn.Module) -> dict[str, Any]:
    """The path of each factorised layer as plain data, by the layer's name."""
    return {name: layer.plan.path.plain() for name, layer in model.named_modules() if isinstance(layer, Factorised)}


def use_plans(model: nn.Module, saved: dict[str, Any]) -> None:
    """Contract along the paths that ``plans`` gave for an equal model."""
    for name, path in saved.items():
        model.get_submodule(name).use(Path.from_plain(path))


def _for_layer(name: str, method: MethodConfig, rank: int | str) -> tuple[MethodConfig, int | str]:
    """The method and rank of one layer, after the overrides whose pattern it matches."""
    for pattern, changes in method.layers.items():
        if fnmatch(name, pattern):
            changes = dict(changes)
            rank = parse_rank(changes.pop("rank", rank))
            known = {f.name for f in fields(MethodConfig)} - {"layers"}
            unknown = sorted(set(changes) - known)
            if unknown:
                raise ConfigError(f"unknown key {', '.join(unknown)} in method.layers, known: rank, {', '.join(known)}")
            method = replace(method, **changes)
    return method, rank
