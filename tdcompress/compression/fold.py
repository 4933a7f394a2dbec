"""A compressed network as one of plain torch modules, for inference: nothing of this package is needed to run it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from torch import Tensor, nn

from ..device.rates import device_rates
from ..layers.base import Factorised, Planner, holding
from ..layers.conv import TORCH, FactorisedConv
from ..layers.dropout import Dropout
from ..tensor.contraction import einsum
from ..tensor.contraction.cost import Rates
from ..tensor.contraction.path import Path
from ..tensor.contraction.roles import KERNEL
from ..tensor.contraction.walk import Meeting, walk
from ..tensor.errors import ConfigError
from .trace import trace

PLANS = ("model", "chain", "dense")


_PADS: dict[str, dict[int, type[nn.Module]]] = {
    "zeros": {1: nn.ZeroPad1d, 2: nn.ZeroPad2d},
    "circular": {1: nn.CircularPad1d, 2: nn.CircularPad2d},
    "reflect": {1: nn.ReflectionPad1d, 2: nn.ReflectionPad2d},
    "replicate": {1: nn.ReplicationPad1d, 2: nn.ReplicationPad2d},
}
"""By padding mode and number of axes."""


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
    ``batch_size`` by the cost model on a device of these ``rates`` (by default the model's own): cores are merged where
    that helps, even all of them. ``chain`` gives it a module for each core, the fewest parameters; ``dense`` one
    ``Conv2d`` or ``Linear``, named as in the network that was compressed. A convolution in groups, and a layer that a
    forward pass does not reach, become dense.

    Convolutions take images of any size, linear layers inputs shaped as in this pass; both need a batch dimension.
    Kernels lie channels last. Raises ``ConfigError`` for an unknown plan and an input that the model cannot take.
    """
    if plan not in PLANS:
        raise ConfigError(f"unknown plan '{plan}', known: {', '.join(PLANS)}")
    model = copy.deepcopy(model)
    inputs = trace(model, input_shape).inputs
    found: dict[nn.Module, nn.Module] = {}
    for name, layer in [*model.named_modules(remove_duplicate=False)]:
        if isinstance(layer, Factorised) and layer not in found:
            found[layer] = layer.plain()
            if name in inputs and plan != "dense" and not layer.reconstructs:
                weight, shape = layer.tensors()[0], next(iter(inputs[name]))
                rates = rates or device_rates(weight.device, weight.dtype)
                path = Planner(shape, batch_size, rates, plan, math.inf)(layer)[0]
                if len(path.terms) > 1:
                    found[layer] = _chain(layer, path, shape)
        elif isinstance(layer, Dropout):
            found[layer] = nn.Dropout(layer.p)
        if layer in found:
            new = found[layer].train(layer.training)
            if not name:
                return new
            model.set_submodule(name, new)
    return model


def _chain(layer: Factorised, path: Path, shape: tuple[int, ...]) -> nn.Module:
    """The calls of ``path``, one after the other; ``shape``: an input for one image, with the batch dimension."""
    chain = _Chain(layer)
    for meeting in walk(layer.graph, path, arrange=lambda order, need, *_: (*need.kept, *need.group, *need.summed)):
        chain.apply(meeting, _merged(layer, meeting.members))
    chain.finish()
    modules = chain.modules
    if isinstance(layer, FactorisedConv):
        if layer.pad_first is not None:
            modules.insert(0, _PADS[layer.padding_mode][len(layer.stride)](layer.pad_first))
    elif len(shape) > 2 and not all(isinstance(module, nn.Linear) for module in modules):
        modules = [nn.Flatten(0, -2), *modules, nn.Unflatten(0, (-1, *shape[1:-1]))]
    return nn.Sequential(*modules)


def _merged(layer: Factorised, members: frozenset[int]) -> einsum.Term:
    """The product of some cores, over their modes and the bonds that reach beyond them."""
    graph = layer.graph
    cores = [einsum.Term(graph.cores[k].indices, layer.tensors()[k].detach()) for k in sorted(members)]
    (merged,) = einsum.contract(cores, graph.open_indices(members))
    return merged


class _Chain:
    """Modules, and the indices of what they put out: ``(b, order [, y] [, x])``, the order flat in one dimension."""

    def __init__(self, layer: Factorised) -> None:
        self.sizes, self.bias = layer.graph.sizes, layer.bias
        self.convolution, self.axes = layer.convolution(), len(layer.weight_shape) - 2
        self.order, self.outputs = layer.graph.inputs, layer.graph.outputs
        self.modules: list[nn.Module] = []

    def size(self, indices: Sequence[str]) -> int:
        return math.prod(self.sizes[index] for index in indices)

    def apply(self, meeting: Meeting, weight: einsum.Term) -> None:
        """Contract with the merged cores of a meeting, ``weight``."""
        need, new, axes = meeting.need, meeting.term.new, meeting.axes
        self.arrange(meeting.wanted[1:])  # the batch is no index of this chain's
        self.order = meeting.after[1:]
        order = tuple(weight.indices.index(index) for index in (*need.group, *new, *need.summed, *axes))
        shape = (self.size((*need.group, *new)), self.size(need.summed), *self._taps(axes))
        bias = None
        if new == self.order == self.outputs:
            bias, self.bias = self.bias, None
        call = self._call(weight.value.permute(order).reshape(shape), self.size(need.group), axes, bias)
        self.modules += _apart(self.size(need.kept[1:]), call)

    def finish(self) -> None:
        """Bring the outputs into their order, and add the bias where no call could."""
        self.arrange(self.outputs)
        if self.bias is not None:  # a kernel of ones for each channel: torch has no module that only adds
            channels = len(self.bias)
            self.modules += self._call(self.bias.new_ones(channels, 1, *self._taps(())), channels, (), self.bias)

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
        return tuple(self.sizes[axis] if axis in axes else 1 for axis in KERNEL)[-self.axes :] if self.axes else ()

    def _call(self, weight: Tensor, groups: int, axes: tuple[str, ...], bias: Tensor | None) -> list[nn.Module]:
        """A convolution or a product whose ``weight`` is ``(new, summed / groups [, taps])``."""
        new, summed = weight.shape[0], weight.shape[1] * groups
        if self.convolution:
            settings = (values[-self.axes :] for values in self.convolution.along(axes))
            call = TORCH[self.axes](summed, new, weight.shape[2:], *settings, groups=groups, device="meta")
            return [holding(call, weight, bias)]
        if groups == 1:
            return [holding(nn.Linear(summed, new, device="meta"), weight, bias)]
        product = nn.Conv1d(summed, new, 1, groups=groups, device="meta")
        return [nn.Unflatten(1, (summed, 1)), holding(product, weight[..., None], bias), nn.Flatten(1, 2)]


def _apart(lead: int, call: list[nn.Module]) -> list[nn.Module]:
    """A call on the last channels only: the ``lead`` ones before them join the batch."""
    if lead == 1:
        return call
    return [nn.Unflatten(1, (lead, -1)), nn.Flatten(0, 1), *call, nn.Unflatten(0, (-1, lead)), nn.Flatten(1, 2)]
