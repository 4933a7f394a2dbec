"""The chain of convolutions that one would write by hand for a layer's cores: the yardstick of the engine.

Which graphs have one is read off the indices that the cores carry: the activation always carries a single channel
index, and every core is one convolution.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.base import Factorised
from ...layers.conv import FactorisedConv
from ...layers.kinds import factorised
from ...tensor.graph import Graph

AXES = ("kh", "kw")


@dataclass(frozen=True)
class Link:
    """One call: core number ``core``, its axes permuted by ``order`` to (new or kept channel, [summed,] taps).

    ``axes``: the kernel modes it carries; ``depthwise``: it keeps the channel index, a tap for each channel.
    """

    core: int
    order: tuple[int, ...]
    axes: tuple[str, ...]
    depthwise: bool


def links(graph: Graph) -> list[Link] | None:
    """The calls from ``i`` to ``o``, or None where the activation would have to carry more than one channel index."""
    rest, channel, found = dict(enumerate(graph.cores)), "i", []
    while rest:
        bearing = [position for position, core in rest.items() if channel in core.indices]
        others = {k: [index for index in rest[k].indices if index not in (channel, *AXES)] for k in bearing}
        depthwise = [k for k in bearing if not others[k] and len(rest[k].indices) > 1]
        if not depthwise and (len(bearing) != 1 or len(others[bearing[0]]) != 1):
            return None
        position = (depthwise or bearing)[0]
        indices, new = rest.pop(position).indices, others[position]
        axes = tuple(axis for axis in AXES if axis in indices)
        order = tuple(indices.index(index) for index in (*new, channel, *axes))
        found.append(Link(position, order, axes, bool(depthwise)))
        channel = (new or [channel])[0]
    return found if channel == "o" else None


class HandChain(nn.Module):
    """The layer's cores as the kernels of plain ``conv2d`` (``linear``) calls, each laid out channels last."""

    def __init__(self, layer: Factorised, chain: list[Link]) -> None:
        super().__init__()
        self.links, cores = chain, layer.tensors()
        self.spatial = layer.spatial
        self.weights = nn.ParameterList(self._kernel(cores[link.core].detach(), link) for link in chain)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        self.settings = [self._settings(layer, link) for link in chain]

    def _kernel(self, core: Tensor, link: Link) -> nn.Parameter:
        weight = core.permute(link.order)
        if not self.spatial:
            return nn.Parameter(weight.contiguous().clone())
        if link.depthwise:
            weight = weight.unsqueeze(1)
        for position, axis in enumerate(AXES, 2):
            weight = weight if axis in link.axes else weight.unsqueeze(position)
        return nn.Parameter(weight.clone(memory_format=torch.contiguous_format).to(memory_format=torch.channels_last))

    def _settings(self, layer: Factorised, link: Link) -> dict[str, tuple[int, ...]]:
        if not isinstance(layer, FactorisedConv):
            return {}
        moves = layer.moves.along(link.axes)
        return {"stride": moves.stride, "padding": moves.padding, "dilation": moves.dilation}

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for position, (link, weight, settings) in enumerate(zip(self.links, self.weights, self.settings, strict=True)):
            bias = self.bias if position == last else None
            if self.spatial:
                x = F.conv2d(x, weight, bias, **settings, groups=len(weight) if link.depthwise else 1)
            else:
                x = F.linear(x, weight, bias)
        return x


def hand_chain(layer: nn.Module) -> HandChain | None:
    """The hand-written chain of a layer's cores, or None where it has none."""
    if not isinstance(layer, Factorised):
        return None
    if isinstance(layer, FactorisedConv):
        plain = type(layer) is FactorisedConv and not (layer.reconstructs or layer.pad_first)
        if not plain or len(layer.kernel_size) != len(AXES):
            return None
    chain = links(layer.graph)
    return None if chain is None else HandChain(layer, chain)


def hand_network(model: nn.Module) -> nn.Module | None:
    """A copy of ``model`` with every factorised convolution as its hand-written chain; None unless each has one.

    So are the linear layers that have one; the others stay as they are.
    """
    twin = copy.deepcopy(model)
    for name, layer in factorised(twin).items():
        chain = hand_chain(layer)
        if chain is not None:
            twin.set_submodule(name, chain)
        elif layer.spatial:
            return None
    return twin if any(isinstance(layer, HandChain) for layer in twin.modules()) else None
