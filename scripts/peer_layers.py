"""The layers of tensorly-torch and tednet that hold a weight as ours do, each made from one of ours.

tensorly-torch's layers take our weights. tednet's constructors take none, and its layers start at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tdcompress.layers.base import Factorised


@dataclass(frozen=True)
class Peer:
    """One of their layers: our ``method`` and ``settings`` of the same topology, and how theirs is made from ours."""

    package: str
    variant: str
    kind: type[nn.Module]
    method: str
    settings: dict[str, Any]
    make: Callable[[Factorised, nn.Module], nn.Module] = field(compare=False)

    @property
    def takes_weights(self) -> bool:
        """Whether theirs starts as a copy of ours."""
        return bool(self.variant)


Maker = Callable[..., nn.Module]

PEERS: list[Peer] = []
CHANNELS, SEPARATE = {"layout": "channels"}, {"layout": "channels", "kernel": "separate"}
SPLIT, PAIRED = {"layout": "split"}, {"layout": "paired"}


def peer(
    package: str, kind: type[nn.Module], method: str, settings: dict[str, Any], *variants: str
) -> Callable[[Maker], Maker]:
    """Decorator: enter a maker of their layer into ``PEERS``, once for each variant."""

    def enter(make: Maker) -> Maker:
        for variant in variants or ("",):
            made = (lambda ours, twin, v=variant: make(ours, twin, v)) if variant else make
            PEERS.append(Peer(package, variant, kind, method, settings, made))
        return make

    return enter


def ranks(ours: Factorised) -> list[int]:
    """The bonds' sizes in the order of their numbers."""
    return [ours.graph.ranks[bond] for bond in sorted(ours.graph.ranks)]


def modes(ours: Factorised) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The factors of the input and of the output channels."""
    sizes = ours.graph.sizes
    ins, outs = (tuple(sizes[m] for m in sorted(ours.graph.modes) if m[0] == side) for side in "io")
    return ins, outs


def by_mode(ours: Factorised) -> dict[str, Tensor]:
    """The cores by the first mode they carry; a core without any by the name ``core``."""
    found = {}
    for core, value in zip(ours.graph.cores, ours.tensors(), strict=True):
        mode = next((index for index in core.indices if index in ours.graph.modes), "core")
        found[mode] = value.detach().contiguous().clone()
    return found


def tensorly_conv(weight: Any, ours: Factorised, twin: nn.Conv2d, implementation: str) -> nn.Module:
    """Their convolution around a factorised kernel."""
    from tltorch import FactorizedConv

    bias = None if ours.bias is None else ours.bias.detach().clone()
    settings = {"stride": twin.stride, "padding": twin.padding, "dilation": twin.dilation, "bias": bias}
    return FactorizedConv.from_factorization(weight, implementation=implementation, **settings)


def tensorly_linear(weight: Any, ours: Factorised, twin: nn.Linear, implementation: str) -> nn.Module:
    """Their linear layer around a factorised matrix."""
    from tltorch import FactorizedLinear

    layer = FactorizedLinear(*modes(ours), twin.bias is not None, weight, implementation=implementation)
    if ours.bias is not None:
        layer.bias.data = ours.bias.detach().clone()
    return layer


@peer("tensorly-torch", nn.Conv2d, "cp", SEPARATE, "factorized", "reconstructed")
def _(ours: Factorised, twin: nn.Conv2d, implementation: str) -> nn.Module:
    from tltorch.factorized_tensors import CPTensor

    cores = by_mode(ours)
    factors = [nn.Parameter(cores[mode]) for mode in ("o", "i", "kh", "kw")]
    return tensorly_conv(CPTensor(nn.Parameter(torch.ones(ranks(ours))), factors), ours, twin, implementation)


@peer("tensorly-torch", nn.Conv2d, "tucker", {"kernel": "open", **CHANNELS}, "factorized", "reconstructed")
def _(ours: Factorised, twin: nn.Conv2d, implementation: str) -> nn.Module:
    from tltorch.factorized_tensors import TuckerTensor

    cores = by_mode(ours)
    core = cores["kh"].transpose(0, 1).contiguous()  # theirs: out, in, kh, kw
    factors = [cores["o"], cores["i"], *(torch.eye(taps) for taps in core.shape[2:])]
    weight = TuckerTensor(nn.Parameter(core), [nn.Parameter(factor) for factor in factors])
    return tensorly_conv(weight, ours, twin, implementation)


@peer("tensorly-torch", nn.Conv2d, "tt", SEPARATE, "factorized", "reconstructed")
def _(ours: Factorised, twin: nn.Conv2d, implementation: str) -> nn.Module:
    from tltorch.factorized_tensors import TTTensor

    cores = by_mode(ours)
    chain = (cores["i"][None], cores["kh"], cores["kw"], cores["o"][..., None])
    return tensorly_conv(TTTensor([nn.Parameter(core) for core in chain]), ours, twin, implementation)


@peer("tensorly-torch", nn.Linear, "cp", SPLIT, "factorized", "reconstructed")
def _(ours: Factorised, twin: nn.Linear, implementation: str) -> nn.Module:
    from tltorch.factorized_tensors import CPTensorized

    cores, (ins, outs) = by_mode(ours), modes(ours)
    factors = [nn.Parameter(cores[mode]) for mode in sorted(cores, key=lambda m: (m[0] == "i", m))]
    weight = CPTensorized(nn.Parameter(torch.ones(ranks(ours))), factors, (outs, ins))
    return tensorly_linear(weight, ours, twin, implementation)


@peer("tensorly-torch", nn.Linear, "tt", PAIRED, "factorized", "reconstructed")
def _(ours: Factorised, twin: nn.Linear, implementation: str) -> nn.Module:
    from tltorch.factorized_tensors import BlockTT

    ins, outs = modes(ours)
    bonds = (1, *ranks(ours), 1)
    factors = [
        nn.Parameter(core.detach().reshape(left, i, o, right).transpose(1, 2).contiguous())
        for core, left, i, o, right in zip(ours.tensors(), bonds, ins, outs, bonds[1:], strict=False)
    ]
    return tensorly_linear(BlockTT(factors, (outs, ins), bonds), ours, twin, implementation)


def convolution(twin: nn.Conv2d) -> dict[str, Any]:
    """The keywords of tednet's convolutions."""
    settings = {"kernel_size": twin.kernel_size, "stride": twin.stride, "padding": twin.padding}
    return {**settings, "bias": twin.bias is not None}


@peer("tednet", nn.Conv2d, "cp", SEPARATE)
def _(ours: Factorised, twin: nn.Conv2d) -> nn.Module:
    from tednet.tnn.cp import CPConv2D

    return CPConv2D(twin.in_channels, twin.out_channels, *ranks(ours), **convolution(twin))


@peer("tednet", nn.Conv2d, "tucker", {"kernel": "open", **CHANNELS})
def _(ours: Factorised, twin: nn.Conv2d) -> nn.Module:
    from tednet.tnn.tucker2 import TK2Conv2D

    return TK2Conv2D(twin.in_channels, twin.out_channels, ranks(ours), **convolution(twin))


@peer("tednet", nn.Conv2d, "tr", SPLIT)
def _(ours: Factorised, twin: nn.Conv2d) -> nn.Module:
    from tednet.tnn.tensor_ring import TRConv2D

    return TRConv2D(*map(list, modes(ours)), ranks(ours), **convolution(twin))


@peer("tednet", nn.Linear, "cp", SPLIT)
def _(ours: Factorised, twin: nn.Linear) -> nn.Module:
    from tednet.tnn.cp import CPLinear

    return CPLinear(*map(list, modes(ours)), *ranks(ours), twin.bias is not None)


@peer("tednet", nn.Linear, "tt", PAIRED)
def _(ours: Factorised, twin: nn.Linear) -> nn.Module:
    from tednet.tnn.tensor_train import TTLinear

    return TTLinear(*map(list, modes(ours)), ranks(ours), twin.bias is not None)


@peer("tednet", nn.Linear, "tr", SPLIT)
def _(ours: Factorised, twin: nn.Linear) -> nn.Module:
    from tednet.tnn.tensor_ring import TRLinear

    return TRLinear(*map(list, modes(ours)), ranks(ours), twin.bias is not None)
