"""A compressed model as one file, from which a freshly built dense model becomes it again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import save as serialised
from torch import Tensor, nn

from ...device.files import write_whole
from ...device.rates import device_rates
from ...layers.apart import put_back, take_apart
from ...layers.base import Factorised, Planner
from ...layers.kinds import factorised, kind_of
from ...layers.parted.attention import call_layers, separate_as
from ...tensor.errors import ConfigError
from ...tensor.graph import Core, Graph
from ...tensor.weight import place
from ..survey.attributes import all_or_nothing
from ..survey.inputs import refuse_other, refuse_sharded, unwrapped
from ..survey.trace import keep_trace
from ..swap import put_cores
from .metadata import KEY, Held, Metadata, described
from .state_dicts import StateDict, read_state_dict

M = TypeVar("M", bound=nn.Module)
_log = logging.getLogger("tdcompress")


def save(model: nn.Module, path: str | Path, config: Mapping[str, Any] | None = None) -> None:
    """Write a model that ``compress`` returned as a ``.safetensors`` file, whole or not at all.

    Its metadata say how each layer is held: format, graph with its ranks, plan, and which layers share their cores; and
    the plain ``config`` that it was trained with, if there is one. A tensor that has several names stands there once.
    Of a model that ``torch.compile`` or ``DataParallel`` has wrapped it is the model inside; of modules that add more
    than tensors to their state (``get_extra_state``) it holds the tensors, and a line is logged.

    Raises ``ConfigError`` for a model without cores or another ending of ``path``, ``RunError`` where nothing can be
    written.
    """
    if Path(path).suffix != ".safetensors":
        raise ConfigError(f"{path} must end in .safetensors, by which load knows what it is")
    whole = file_of(model, config)
    write_whole(Path(path), lambda file: file.write(whole))


def file_of(model: nn.Module, config: Mapping[str, Any] | None = None) -> bytes:
    """What ``save`` writes."""
    refuse_other(model)
    model = unwrapped(model)
    refuse_sharded(model)
    if not factorised(model):
        raise ConfigError(f"this {type(model).__name__} holds no cores: compress it first, or save its state_dict")
    for name, layer in factorised(model).items():
        if computed := [core.name for core in layer.graph.cores if layer.cores._parameters.get(core.name) is None]:
            raise ConfigError(
                f"layer {name}: {computed[0]} is computed from other parameters, of which load knows nothing: make it "
                "one first (torch.nn.utils.parametrize.remove_parametrizations, torch.nn.utils.prune.remove)"
            )
    tensors: dict[str, Tensor] = {}
    there: set[tuple[Any, ...]] = set()
    state = model.state_dict()
    if more := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        _log.warning("saved without %s, which are no tensors", ", ".join(more))
    for name, value in state.items():
        if name in more:
            continue
        if value.layout != torch.strided:
            raise ConfigError(f"{name} is sparse, which a .safetensors file cannot hold")
        if value.is_quantized:
            raise ConfigError(f"{name} is quantised, which a .safetensors file cannot hold")
        if place(value) not in there:
            there.add(place(value))
            part = value.untyped_storage().nbytes() > value.nbytes  # of what may have other names, too
            tensors[name] = value.clone(memory_format=torch.contiguous_format) if part else value.contiguous()
    return serialised(tensors, metadata={KEY: Metadata.of(model, config).text()})


def load(path: str | Path, model: M) -> M:
    """Give ``model`` the weights in a file, and where these are cores, layers that hold them.

    ``model``: as its class builds it, dense, or wrapped as ``save`` takes it. The file: one of ``save``, whose network
    it then is to the bit, or any that ``read_state_dict`` reads. Nothing in it is run, and no input is needed. Returns
    the model, or what takes its place if it is itself a layer.

    Raises ``RunError`` for a file that is missing or damaged, ``ConfigError`` for one of another model, naming what is
    different. The model is then what it was.
    """
    found = read_state_dict(path)
    said = described(found)
    own = unwrapped(model)
    with all_or_nothing(own):
        if said is None and (
            cores := [key for key in found.tensors if ".cores." in key and key not in own.state_dict()]
        ):
            raise ConfigError(
                f"{found.source} holds cores ({cores[0]}) and does not say how: load reads what tdcompress.save and "
                "tdc compress out=NAME.safetensors write; init_from takes this one"
            )
        new = own if said is None else _with_layers(own, said, found)
        if new is not own is not model:
            raise ConfigError(f"{type(own).__name__} is itself a layer that is replaced: load before it is wrapped")
        found = found.named_as(new)
        found.load_into(new)
    found.log()
    return model if new is own else cast(M, new)


def _with_layers(model: nn.Module, said: Metadata, found: StateDict) -> nn.Module:
    """``model`` with the layers that the metadata of a file describe, holding the file's cores."""
    if factorised(model):
        raise ConfigError("the model holds cores already: load takes one as its class builds it, dense")
    whole: nn.Module
    whole, wholes = take_apart(model)
    separate_as(whole, said.layers.keys())
    new: dict[str, Factorised] = {}
    for name, held in said.layers.items():
        new[name] = _layer(whole, name, held, found, new)
    for layer in new.values():
        others = [other for other in new.values() if other is not layer and _same_cores(other, layer)]
        if others:
            layer.tie(others)
    whole = put_cores(whole, {whole.get_submodule(name): layer for name, layer in new.items()})
    whole = put_back(whole, wholes)
    there = {name for name, _ in whole.named_modules(remove_duplicate=False)}
    for name, reason in said.left.items():
        if name not in there:
            raise ConfigError(f"{found.source} does not fit: the model has no layer {name}")
        vars(whole.get_submodule(name))["left_dense"] = reason
    if said.trace is not None:
        keep_trace(whole, said.trace)
    call_layers(whole)
    return whole


def _layer(model: nn.Module, name: str, held: Held, found: StateDict, others: Mapping[str, Factorised]) -> Factorised:
    twin = dict(model.named_modules()).get(name)
    kind = kind_of(twin) if twin is not None else None
    if twin is None or kind is None:
        raise ConfigError(f"{found.source} does not fit: the model has no layer {name} that can be held as cores")
    weight, graph = kind.weight(twin), held.graph
    if tuple(weight.shape) != held.weight_shape:
        raise ConfigError(
            f"{found.source} does not fit: the weight of {name} is {held.weight_shape} in it and "
            f"{tuple(weight.shape)} in the model"
        )
    if held.cores_of != name:
        cores = list(others[held.cores_of].tensors())
    else:
        cores = [nn.Parameter(_core(found, name, core, graph).to(weight), weight.requires_grad) for core in graph.cores]
    planner = Planner(rates=device_rates(weight.device, weight.dtype), **held.planner)
    layer = kind.held(twin, held.format, graph, cores, planner)
    layer.use(held.path)
    layer.layout, layer.checkpoint, layer.contiguous = held.layout, held.checkpoint, held.contiguous
    return layer


def _core(found: StateDict, layer: str, core: Core, graph: Graph) -> Tensor:
    key = f"{layer}.cores.{core.name}".lstrip(".")
    shape = tuple(found.tensors[key].shape) if key in found.tensors else "missing"
    if shape != graph.shape(core):
        raise ConfigError(f"{found.source} does not fit itself: {key} is {shape} in it, not {graph.shape(core)}")
    return found.tensors[key]


def _same_cores(one: Factorised, other: Factorised) -> bool:
    return one.tensors()[0] is other.tensors()[0]
