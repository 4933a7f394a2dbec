"""Single layers and single weights as cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..layers.base import Factorised
from ..layers.conv import TORCH
from ..tensor.contraction.cost import Rates
from ..tensor.errors import ConfigError
from ..tensor.fitting.decompose import relative_error
from ..tensor.formats import DEFAULT
from ..tensor.graph import Graph
from ..tensor.rank import RankLike
from ..tensor.weight import checked, to_dense
from .swap import compress


@dataclass(frozen=True)
class Decomposition:
    """A dense weight of ``weight_shape`` as cores.

    ``format``: its name; ``cores``: by name, in the order of ``graph``, which says what indices each of them carries;
    ``error``: ||W - What|| / ||W||.
    """

    format: str
    graph: Graph
    cores: dict[str, Tensor]
    weight_shape: tuple[int, ...]
    error: float

    @property
    def ranks(self) -> dict[str, int]:
        """The size of every bond."""
        return self.graph.ranks

    @property
    def parameters(self) -> int:
        """Entries of all cores."""
        return self.graph.parameters

    def to_dense(self) -> Tensor:
        """The reconstructed weight, in the dense weight's shape."""
        return to_dense(self.graph, list(self.cores.values()))


def decompose(weight: Tensor, format: str = DEFAULT, rank: RankLike = 8, **settings: Any) -> Decomposition:
    """Fit the cores of ``format`` to a dense weight, ``(out, in[, [[kd,] kh,] kw])``, in the Frobenius norm.

    In single precision; the cores have the weight's type and device.
    ``rank`` and ``settings`` are those of ``compress``; a budget such as ``"10x"`` is of this weight alone. CP and
    other graphs with cycles or hyperedges start from cores drawn from torch's generator.

    >>> import torch, tdcompress
    >>> weight = torch.linspace(-1, 1, 32 * 16 * 9).sin().reshape(32, 16, 3, 3)
    >>> found = tdcompress.decompose(weight, "tucker", rank=8)
    >>> {name: tuple(core.shape) for name, core in found.cores.items()}
    {'factor_i': (16, 8), 'factor_o': (32, 8), 'core': (8, 8, 3, 3)}
    >>> found.error < 1e-3 and torch.allclose(found.to_dense(), weight, atol=1e-3)
    True

    Raises ``ConfigError`` for a weight that is no tensor or of another shape, and as ``compress`` does.
    """
    return decomposition(weight, format, rank, {"init": "fit", **settings})


def decomposition(weight: Tensor, format: str, rank: RankLike, settings: Mapping[str, Any]) -> Decomposition:
    """A dense weight as the cores that ``compress`` gives a layer of it, ``settings`` being its keywords."""
    if not isinstance(weight, Tensor):
        raise ConfigError(f"a weight is a tensor, got a {type(weight).__name__}: torch.as_tensor makes one of an array")
    axes = weight.dim() - 2
    if axes and axes not in TORCH:
        raise ConfigError(f"a weight is (out, in) or (out, in, [[kd,] kh,] kw), got {tuple(weight.shape)}")
    values = checked(weight).detach().to("cpu", torch.float32)
    outputs, inputs, *kernel = values.shape
    twin: nn.Module = nn.Linear(inputs, outputs, bias=False)
    if axes:  # padded, so that every step of a contraction has as many pixels, whatever the image
        twin = TORCH[axes](inputs, outputs, tuple(kernel), padding=tuple(taps // 2 for taps in kernel), bias=False)
    twin.weight = nn.Parameter(values)
    layer = _single(twin, tuple(values.shape[1:]), format, rank, settings)
    if not isinstance(layer, Factorised):
        raise ConfigError(f"format {format} leaves a weight as it is")
    names = [core.name for core in layer.graph.cores]
    cores = {name: core.detach().to(weight) for name, core in zip(names, layer.tensors(), strict=True)}
    error = relative_error(layer.graph, list(cores.values()), weight)
    return Decomposition(layer.format, layer.graph, cores, tuple(weight.shape), error)


def conv2d(
    format: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
    *,
    rank: RankLike = 8,
    image_size: int | tuple[int, int] = 32,
    **settings: Any,
) -> nn.Module:
    """An ``nn.Conv2d`` whose weight is held in ``format`` at ``rank``, with the variance that torch would give it.

    ``image_size``: height and width that the contraction is planned for; it takes any. ``rank`` and ``settings``:
    those of ``compress``; a budget such as ``"10x"`` is of this layer alone.

    >>> import torch, tdcompress
    >>> layer = tdcompress.conv2d("tt", 64, 128, 3, padding=1, rank=8)
    >>> layer(torch.zeros(2, 64, 20, 20)).shape
    torch.Size([2, 128, 20, 20])
    >>> {name: tuple(core.shape) for name, core in layer.cores.items()}
    {'core1': (64, 8), 'core2': (8, 3, 3, 8), 'core3': (8, 128)}
    """
    twin = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
    high, wide = (image_size, image_size) if isinstance(image_size, int) else image_size
    return _single(twin, (in_channels, high, wide), format, rank, settings)


def linear(
    format: str,
    in_features: int,
    out_features: int,
    bias: bool = True,
    *,
    rank: RankLike = 8,
    **settings: Any,
) -> nn.Module:
    """An ``nn.Linear`` whose weight is held in ``format`` at ``rank``, with the variance that torch would give it.

    ``rank`` and ``settings``: those of ``compress``; a budget such as ``"10x"`` is of this layer alone.

    >>> import torch, tdcompress
    >>> layer = tdcompress.linear("cp", 1024, 10, rank=4, layout="split", in_modes=[64, 4, 4], out_modes=[10])
    >>> [tuple(core.shape) for core in layer.tensors()]
    [(64, 4), (4, 4), (4, 4), (10, 4)]
    """
    return _single(nn.Linear(in_features, out_features, bias), (in_features,), format, rank, settings)


def _single(
    twin: nn.Module, shape: tuple[int, ...], format: str, rank: RankLike, settings: Mapping[str, Any]
) -> nn.Module:
    """``twin``, a dense layer for inputs of ``shape``, held in a format, whatever that saves."""
    settings = {"allow_larger": True, "keep": [], "rates": Rates(), **settings}
    return compress(nn.Sequential(twin), format, rank, shape, **settings)[0]
