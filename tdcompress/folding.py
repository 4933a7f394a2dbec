"""A compressed network as one of plain torch modules, for inference: nothing of this package is needed to run it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from .compression import input_shapes, layer_geometry
from .config import ConfigError
from .dropout import Dropout
from .layers import Factorised, FactorisedConv2d
from .network import contraction
from .network.cost import Rates
from .network.graph import Graph
from .network.measure import device_rates
from .network.path import KERNEL, Path, Tree, parts, paths
from .network.plan import Convolution

T = TypeVar("T", nn.Conv1d, nn.Conv2d, nn.Linear)
PLANS = ("model", "chain", "dense")
_PADS = {
    "zeros": nn.ZeroPad2d, "circular": nn.CircularPad2d, "reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d,
}  # fmt: skip


def fold(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    plan: str = "model",
    batch_size: int = 1,
    rates: Rates | None = None,
) -> nn.Module:
    """A copy of ``model`` in which plain torch modules stand for the factorised layers and compute the same.

    ``input_shape``: one input without the batch dimension. ``plan``: ``model`` gives each layer what is fastest at
    ``batch_size`` by the cost model on a device of these ``rates`` (by default the model's own), with cores merged where
    that helps, even all of them; ``chain`` a module for each core, the fewest parameters; ``dense`` one ``Conv2d`` or
    ``Linear``, named as in the network that was compressed. A layer that a forward pass does not reach becomes dense.

    Convolutions take images of any size and linear layers as many dimensions as in this pass; both need a batch
    dimension. Raises ``ConfigError`` for an unknown plan and an input that the model cannot take.
    """
    if plan not in PLANS:
        raise ConfigError(f"unknown plan '{plan}', known: {', '.join(PLANS)}")
    model = copy.deepcopy(model)
    shapes = input_shapes(model, input_shape)
    found: dict[nn.Module, nn.Module] = {}
    for name, layer in [*model.named_modules(remove_duplicate=False)]:
        if isinstance(layer, Factorised) and layer not in found:
            weight = layer.tensors()[0]
            path = _path(layer, shapes.get(name), plan, batch_size, rates or device_rates(weight.device, weight.dtype))
            found[layer] = (_dense(layer) if path is None else _chain(layer, path, shapes[name])).train(layer.training)
        elif isinstance(layer, Dropout):
            found[layer] = nn.Dropout(layer.p).train(layer.training)
        if layer in found:
            if not name:
                return found[layer]
            model.set_submodule(name, found[layer])
    return model


def _path(layer: Factorised, shape: tuple[int, ...] | None, plan: str, batch_size: int, rates: Rates) -> Path | None:
    """The path to contract along, None where the dense weight is to be used."""
    if shape is None or plan == "dense" or (isinstance(layer, FactorisedConv2d) and layer.groups > 1):
        return None
    geometry = replace(layer_geometry(layer, shape, batch_size), constant=True)
    path = paths(layer.graph, geometry, rates, plan)[0]
    return path if len(path.terms) > 1 else None


def _dense(layer: Factorised) -> nn.Conv2d | nn.Linear:
    out_channels, in_channels, *kernel = layer.weight_shape
    module: nn.Conv2d | nn.Linear
    if isinstance(layer, FactorisedConv2d):
        padding: tuple[int, int] | str = layer.padding
        if layer.pad_first is not None:
            left, right, top, bottom = layer.pad_first
            padding = (top, left) if (left, top) == (right, bottom) else "same"
        settings = (layer.stride, padding, layer.dilation, layer.groups)
        module = nn.Conv2d(
            in_channels * layer.groups, out_channels, (kernel[0], kernel[1]), *settings,
            padding_mode=layer.padding_mode, device="meta",
        )  # fmt: skip
    else:
        module = nn.Linear(in_channels, out_channels, device="meta")
    return _holding(module, layer.to_dense(), layer.bias)


def _chain(layer: Factorised, path: Path, shape: tuple[int, ...]) -> nn.Module:
    """The calls of ``path`` one after the other; ``shape``: the layer's input for one image, batch dimension included."""
    graph, applied = layer.graph, set[int]()
    outputs = tuple(mode for mode in graph.modes if mode[0] == "o")
    convolution = None
    if isinstance(layer, FactorisedConv2d):
        convolution = Convolution(layer.stride, layer.padding, layer.dilation)
    chain = _Chain(graph.sizes, tuple(mode for mode in graph.modes if mode[0] == "i"), convolution)
    for term in path.terms:
        members = _members(term.tree)
        applied |= members
        needed = frozenset(bond for bond in graph.bonds if not applied.issuperset(graph.carriers[bond]))
        last = len(applied) == len(graph.cores)
        chain.apply(_merged(layer, graph, members), needed, term.new, outputs if last else None, layer.bias)
    chain.finish(outputs, layer.bias)
    modules = chain.modules
    if isinstance(layer, FactorisedConv2d):
        if layer.pad_first is not None:
            modules.insert(0, _PADS[layer.padding_mode](layer.pad_first))
    elif len(shape) > 2 and not all(isinstance(module, nn.Linear) for module in modules):
        modules = [nn.Flatten(0, -2), *modules, nn.Unflatten(0, (-1, *shape[1:-1]))]
    return nn.Sequential(*modules)


def _members(tree: Tree) -> set[int]:
    return {tree} if isinstance(tree, int) else _members(tree[0]) | _members(tree[1])


def _merged(layer: Factorised, graph: Graph, members: set[int]) -> contraction.Term:
    """The product of some cores, over their modes and the bonds that reach beyond them."""
    cores = [contraction.Term(graph.cores[k].indices, layer.tensors()[k].detach()) for k in sorted(members)]
    indices = dict.fromkeys(index for core in cores for index in core.indices)
    keep = [i for i in indices if i in graph.modes or not members.issuperset(graph.carriers[i])]
    (merged,) = contraction.contract(cores, keep)
    return merged


@dataclass
class _Chain:
    """Modules, and the indices of the activation that they put out: ``(b, order [, y, x])``, flat in one dimension.

    ``convolution``: of a layer of images, None for rows.
    """

    sizes: Mapping[str, int]
    order: tuple[str, ...]
    convolution: Convolution | None
    modules: list[nn.Module] = field(default_factory=list)
    biased: bool = False

    def size(self, indices: Sequence[str]) -> int:
        return math.prod(self.sizes[index] for index in indices)

    def apply(
        self, weight: contraction.Term, needed: frozenset[str], new: tuple[str, ...],
        outputs: tuple[str, ...] | None, bias: Tensor | None,
    ) -> None:  # fmt: skip
        """Contract with ``weight``, whose own indices come out as ``new``; the ``bias`` too if these are ``outputs``."""
        axes = tuple(index for index in weight.indices if index in KERNEL)
        need = parts(self.order, [index for index in weight.indices if index not in KERNEL], needed)
        self.arrange((*need.kept, *need.group, *need.summed))
        groups, summed = self.size(need.group), self.size(need.summed)
        order = tuple(weight.indices.index(index) for index in (*need.group, *new, *need.summed, *axes))
        value = weight.value.permute(order).reshape(groups * self.size(new), summed, *self._taps(axes))
        self.biased = bias is not None and new == outputs and not need.kept + need.group
        call = self._call(value, groups, axes, bias if self.biased else None)
        self.modules += _apart(self.size(need.kept), call)
        self.order = (*need.kept, *need.group, *new)

    def finish(self, outputs: tuple[str, ...], bias: Tensor | None) -> None:
        """Bring the outputs into their order, and add the bias where no call has done so."""
        self.arrange(outputs)
        if bias is not None and not self.biased:  # a kernel of ones for each channel: torch has no module that only adds
            ones = bias.new_ones(len(bias), 1, *self._taps(()))
            self.modules += self._call(ones, len(bias), (), bias)

    def arrange(self, wanted: tuple[str, ...]) -> None:
        """Permute the indices of the activation: neighbouring runs of them change places, as channels are shuffled."""
        for start, index in enumerate(wanted):
            left = self.order.index(index)
            if left == start:
                continue
            right = left + 1
            while self.order[right : right + 1] == wanted[start + right - left : start + right - left + 1] != ():
                right += 1
            before, moved = self.order[:start], self.order[start:left]
            sizes = (self.size(before), self.size(self.order[start:right]), self.size(self.order[right:]))
            self.modules += [nn.Unflatten(1, sizes), nn.Flatten(0, 1), nn.ChannelShuffle(self.size(moved))]
            self.modules += [nn.Unflatten(0, (-1, sizes[0])), nn.Flatten(1, 3)]
            self.order = (*before, *self.order[left:right], *moved, *self.order[right:])

    def _taps(self, axes: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(self.sizes[axis] if axis in axes else 1 for axis in KERNEL) if self.convolution else ()

    def _call(self, weight: Tensor, groups: int, axes: tuple[str, ...], bias: Tensor | None) -> list[nn.Module]:
        """A convolution or a product whose ``weight`` is ``(new, summed / groups [, taps])``."""
        new, summed = weight.shape[0], weight.shape[1] * groups
        if self.convolution:
            taps, settings = (weight.shape[2], weight.shape[3]), self.convolution.along(axes)
            return [_holding(nn.Conv2d(summed, new, taps, *settings, groups=groups, device="meta"), weight, bias)]
        if groups == 1:
            return [_holding(nn.Linear(summed, new, device="meta"), weight, bias)]
        product = nn.Conv1d(summed, new, 1, groups=groups, device="meta")
        return [nn.Unflatten(1, (summed, 1)), _holding(product, weight[..., None], bias), nn.Flatten(1, 2)]


def _apart(lead: int, call: list[nn.Module]) -> list[nn.Module]:
    """A call on the last channels only: the ``lead`` ones before them join the batch."""
    if lead == 1:
        return call
    return [nn.Unflatten(1, (lead, -1)), nn.Flatten(0, 1), *call, nn.Unflatten(0, (-1, lead)), nn.Flatten(1, 2)]


def _holding(module: T, weight: Tensor, bias: Tensor | None) -> T:
    module.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    module.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return module
