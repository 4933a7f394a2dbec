"""A compressed network as one of plain torch modules, for inference: nothing of this package is needed to run it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ...device.rates import device_rates
from ...layers.base import Factorised, Planner
from ...layers.conv import FactorisedConv, torch_conv
from ...layers.parted.base import Parted, like
from ...layers.values import holding
from ...models.dropout import Dropout
from ...tensor.contraction.cost import Rates
from ...tensor.contraction.path import Path
from ...tensor.contraction.search import merge_tree
from ...tensor.contraction.walk import Meeting, walk
from ...tensor.errors import ConfigError
from ...tensor.weight import uncast
from ..survey.agreement import agree
from ..survey.attributes import copied
from ..survey.inputs import Examples, refuse_other, refuse_sharded, said_of
from ..survey.trace import keep_trace, trace
from .merged import Merged, merging, share, weighing

PLANS = ("model", "chain", "dense")


_PADS: dict[str, dict[int, type[nn.Module]]] = {
    "zeros": {1: nn.ZeroPad1d, 2: nn.ZeroPad2d, 3: nn.ZeroPad3d},
    "circular": {1: nn.CircularPad1d, 2: nn.CircularPad2d, 3: nn.CircularPad3d},
    "reflect": {1: nn.ReflectionPad1d, 2: nn.ReflectionPad2d, 3: nn.ReflectionPad3d},
    "replicate": {1: nn.ReplicationPad1d, 2: nn.ReplicationPad2d, 3: nn.ReplicationPad3d},
}
"""By padding mode and number of axes."""

_PAD_CHANNELS: dict[int, Callable[..., nn.Module]] = {
    0: nn.ConstantPad1d,
    1: nn.ConstantPad2d,
    2: nn.ConstantPad3d,
    3: nn.ConstantPad3d,
}
"""By the number of axes behind the channels; the last takes what ``torch.nn.functional.pad`` does."""


def fold(
    model: nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    example_inputs: Any = None,
    plan: str = "model",
    batch_size: int = 1,
    rates: Rates | None = None,
    keep_cores: bool = False,
) -> nn.Module:
    """A copy of ``model`` in which plain torch modules stand for the factorised layers and compute the same.

    ``input_shape``: one input without the batch dimension; or ``example_inputs``, as ``compress`` has them. ``plan``:
    ``model`` gives each layer what is fastest at ``batch_size`` by the cost model on a device of these ``rates`` (by
    default the model's own): cores are merged where that helps, even all of them. ``chain`` gives it a module for each
    core, the fewest parameters; ``dense`` one ``Conv2d`` or ``Linear``, named as in the network that was compressed. A
    convolution in groups, or of timm's ``Conv2dSame``, an embedding, a layer that a forward pass does not reach, one
    that torch has with several weights, and one whose weight other code reads become dense. With ``keep_cores`` a
    weight that is merged of several cores is computed from these whenever it is used (``torch.nn.utils.parametrize``):
    there are as few parameters as in ``model``.

    Convolutions take images of any size. Linear layers take inputs shaped as in this pass (of other numbers of steps,
    which a chain refuses, plain ``Linear`` ones alone); both need a batch dimension, of linear layers the first: what
    has steps before the batch needs ``dense``. A linear layer that was given inputs in several shapes there may become
    dense, too. Layers that share a weight share it afterwards where both are dense, as they are with ``keep_cores``.
    What was frozen is, hooks are those of the layers. Weights lie in one piece, as torch's do; convolutions are faster
    after ``.to(memory_format=torch.channels_last)``.
    Raises ``ConfigError`` for an unknown plan and an input that the model cannot take, before or afterwards.
    """
    if plan not in PLANS:
        raise ConfigError(f"unknown plan '{plan}', known: {', '.join(PLANS)}")
    refuse_other(model)
    refuse_sharded(model)
    examples = Examples.of(model, input_shape, example_inputs)
    with torch.inference_mode(False), torch.no_grad(), uncast(next(model.parameters(), torch.empty(0))):
        new = _folded(copied(model), examples, plan, batch_size, rates, keep_cores)
        dense = "with plan='dense' each layer is one of torch's own class"
        try:
            same = agree(new, model, examples)
        except Exception as error:  # anyone's code, which may ask a layer for what a chain of modules has not
            told = f"as plain modules the model cannot take {examples}: {said_of(error)}; {dense}"
            raise ConfigError(told) from error
        if not same:
            raise ConfigError(f"as plain modules the model computes something else, as it may ask for a class; {dense}")
    return new


def _folded(
    model: nn.Module, examples: Examples, plan: str, batch_size: int, rates: Rates | None, keep_cores: bool
) -> nn.Module:
    """``fold`` in place."""
    for module in model.modules():  # a part of it may have been compressed by itself
        keep_trace(module, None)
    seen = trace(model, examples)
    inputs = {name: shapes for name, shapes in seen.inputs.items() if name not in seen.reads}
    found: dict[nn.Module, nn.Module] = {}
    held: dict[Factorised, tuple[nn.Module, str]] = {}

    def hold(module: nn.Module, weight: str, layer: Factorised) -> nn.Module:
        held[layer] = (module, weight)
        return _weight(module, weight, layer, keep_cores)

    for name, layer in [*model.named_modules(remove_duplicate=False)]:
        if isinstance(layer, Parted):
            found[layer] = found.get(layer) or layer.together(hold)
            model = _with(model, name, found[layer])
    for name, layer in [*model.named_modules(remove_duplicate=False)]:
        if isinstance(layer, Factorised) and layer not in found:
            found[layer] = _whole(layer) if keep_cores and layer.of_cores else layer.plain()
            alone = not (keep_cores and layer.tied)  # a chain holds the cores for itself
            if name in inputs and plan != "dense" and layer.chains and not layer.reconstructs and alone:
                weight, shape = layer.tensors()[0], next(iter(inputs[name]))
                own = rates or device_rates(weight.device, weight.dtype)
                path = Planner(shape, batch_size, own, plan, math.inf)(layer)[0]
                if len(path.terms) > 1:
                    found[layer] = _chain(layer, path, inputs[name], keep_cores) or found[layer]
            _train_as(layer, found[layer])
            if not isinstance(found[layer], nn.Sequential):
                held[layer] = (found[layer], "weight")
        elif isinstance(layer, Dropout):
            found[layer] = nn.Dropout(layer.p)
        if layer in found:
            new = like(layer, found[layer])
            model = _with(model, name, new)
    share(held)
    return model


def _with(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """``model`` with ``new`` under this name, which is empty for the model itself."""
    if not name:
        return new
    model.set_submodule(name, new)
    return model


def _whole(layer: Factorised) -> nn.Module:
    """``layer.plain()`` with the cores as its parameters."""
    module = layer.plain()
    merged = _merged(layer, layer.transposed and not isinstance(module, nn.Linear))
    return merging(module, merged, layer.tensors(), layer.bias, keep=True)


def _weight(module: nn.Module, name: str, layer: Factorised, keep_cores: bool) -> nn.Module:
    """``module`` with the weight of ``layer`` as its own of this name, or with the cores as its parameters."""
    module = weighing(module, name, _merged(layer, layer.transposed), layer.tensors(), keep_cores)
    _train_as(layer, module, name)
    return module


def _train_as(layer: Factorised, module: nn.Module, weight: str | None = None) -> None:
    """Freeze a bias of ``module`` as the layer's, and weights if all cores are; or the ``weight`` of this name."""
    cores = any(core.requires_grad for core in layer.tensors())
    for name, parameter in module.named_parameters():
        if weight is None and name.endswith("bias"):
            parameter.requires_grad_(layer.bias is not None and layer.bias.requires_grad)
        elif not cores and (weight is None or weight in name.split(".")):
            parameter.requires_grad_(False)


def _merged(layer: Factorised, transposed: bool) -> Merged:
    """The weight of a layer, outputs first unless it is ``transposed``."""
    graph = layer.graph
    (outputs, inputs, *kernel), (more_outputs, more_inputs) = graph.weight_shape, graph.padding
    rows, columns = (graph.outputs, outputs, more_outputs), (graph.inputs, inputs, more_inputs)
    if transposed:
        rows, columns = columns, rows
    order = (*rows[0], *columns[0], *graph.modes[len(rows[0]) + len(columns[0]) :])
    shape, read = (rows[1] + rows[2], columns[1] + columns[2], *kernel), (rows[1], columns[1])
    return Merged(graph, merge_tree(graph), order, shape, read)


def _chain(layer: Factorised, path: Path, inputs: Collection[tuple[int, ...]], keep_cores: bool) -> nn.Module | None:
    """The calls of ``path``, one after the other.

    ``inputs``: the shapes of inputs, with the batch dimension. None where these are several, and rows that come of them
    would have to be told apart to give them their shape again.
    """
    chain = _Chain(layer, keep_cores)
    for meeting in walk(layer.graph, path, arrange=lambda order, need, *_: (*need.kept, *need.group, *need.summed)):
        chain.apply(meeting)
    chain.finish()
    modules = chain.modules
    if isinstance(layer, FactorisedConv):
        if layer.pad_first is not None:
            modules.insert(0, _PADS[layer.padding_mode][len(layer.kernel_size)](layer.pad_first))
    elif not all(isinstance(module, nn.Linear) for module in modules):
        ((*steps,), *others) = {shape[1:-1] for shape in inputs}
        if others:
            return None
        if steps:
            as_here = [nn.Unflatten(1 + 2 * place, (size, 1)) for place, size in enumerate(steps)]  # or raises an error
            modules = [*as_here, nn.Flatten(0, -2), *modules, nn.Unflatten(0, (-1, *steps))]
    return nn.Sequential(*modules)


class _Chain:
    """Modules, and the indices of what they put out: ``(b, order, space)``, the order flat in one dimension."""

    def __init__(self, layer: Factorised, keep_cores: bool) -> None:
        self.graph, self.cores, self.keep_cores = layer.graph, layer.tensors(), keep_cores
        self.sizes, self.bias = layer.graph.sizes, layer.bias
        self.moves, self.axes = layer.moves if isinstance(layer, FactorisedConv) else None, len(layer.weight_shape) - 2
        self.order, self.outputs = layer.graph.inputs, layer.graph.outputs
        self.beyond = 0  # channels that the last call puts out and nobody reads
        self.modules: list[nn.Module] = []

    def size(self, indices: Sequence[str]) -> int:
        return math.prod(self.sizes[index] for index in indices)

    def apply(self, meeting: Meeting) -> None:
        """Contract with the merged cores of a meeting."""
        need, new, axes = meeting.need, meeting.term.new, meeting.axes
        if not self.modules and not meeting.reads:
            self.pad(self.graph.padding[1])
        self.arrange(meeting.wanted[1:])  # the batch is no index of this chain's
        self.order = meeting.after[1:]
        groups = self.size(need.group)
        rows, columns, read = new, need.summed, (meeting.new, meeting.summed)
        if self.moves and self.moves.along(axes).transposed:
            rows, columns, read = columns, rows, read[::-1]
        taps = self._taps(axes, groups)
        shape, read = (groups * self.size(rows), self.size(columns), *taps), (groups * read[0], read[1])
        merged = Merged(self.graph, meeting.term.tree, (*need.group, *rows, *columns, *axes), shape, read)
        cores, bias = [self.cores[position] for position in merged.members], None
        self.beyond = 0 if meeting.writes else self.graph.padding[0]
        if meeting.closes:
            bias, self.bias = self.bias, None
        hold = partial(merging, merged=merged, cores=cores, bias=bias, keep=self.keep_cores)
        self.modules += _apart(self.size(need.kept[1:]), self._call((*read, *taps), groups, axes, hold))

    def finish(self) -> None:
        """Bring the outputs into their order, and add the bias where no call could."""
        self.arrange(self.outputs)
        self.pad(-self.beyond)
        if self.bias is not None:  # a kernel of ones for each channel: torch has no module that only adds
            channels = len(self.bias)
            ones = self.bias.new_ones(channels, 1, *self._taps((), channels))
            hold = partial(holding, weight=ones, bias=self.bias)
            self.modules += self._call(tuple(ones.shape), channels, (), hold)

    def pad(self, channels: int) -> None:
        """Add so many channels of zeros behind the others, or take them away."""
        if channels:
            self.modules.append(_PAD_CHANNELS[self.axes]((0, 0) * self.axes + (0, channels), 0.0))

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

    def _taps(self, axes: tuple[str, ...], groups: int) -> tuple[int, ...]:
        """The last sizes of a call's weight; a product in groups is a convolution, too."""
        if not self.moves:
            return (1,) * (groups > 1)
        return tuple(self.sizes[mode] if mode in axes else 1 for mode in self.moves.modes)

    def _call(
        self, shape: tuple[int, ...], groups: int, axes: tuple[str, ...], hold: Callable[[nn.Module], nn.Module]
    ) -> list[nn.Module]:
        """A convolution or a product whose weight, of ``shape`` ``(new, summed / groups [, taps])``, ``hold`` gives.

        That of a transposed convolution is of ``(summed, new / groups, taps)``.
        """
        new, summed, taps = shape[0], shape[1] * groups, shape[2:]
        if self.moves:
            moves = self.moves.along(axes)
            summed, new = (new, summed) if moves.transposed else (summed, new)
            return [hold(torch_conv(moves, summed, new, taps, groups=groups))]
        if groups == 1:
            return [hold(nn.Linear(summed, new, device="meta"))]
        product = hold(nn.Conv1d(summed, new, 1, groups=groups, device="meta"))
        return [nn.Unflatten(1, (summed, 1)), product, nn.Flatten(1, 2)]


def _apart(lead: int, call: list[nn.Module]) -> list[nn.Module]:
    """A call on the last channels only: the ``lead`` ones before them join the batch."""
    if lead == 1:
        return call
    return [nn.Unflatten(1, (lead, -1)), nn.Flatten(0, 1), *call, nn.Unflatten(0, (-1, lead)), nn.Flatten(1, 2)]
