"""When a network that trains at full rank has settled into the ranks that it needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.apart import put_back, take_apart
from ..layers.kinds import dense_weights, kind_by_class, kind_of
from ..tensor.errors import ConfigError
from ..tensor.weight import checked
from .choice import naming
from .left import left_dense
from .survey.inputs import unwrapped

THRESHOLD = 0.02
"""Relative change of the sum per thirtieth of the training below which it has settled."""


@dataclass
class StableRanks:
    """Follows the stable ranks of a network's weights (Wang et al. 2023, *Cuttlefish*, sections 3.1 and 3.2).

    The stable rank of a weight, as a matrix of its outputs by all else, is the sum of its squared singular values over
    the largest of them. ``scales``: by the name of a layer, full rank over stable rank at the start, which the stable
    ranks are multiplied with; ``sums``: of all layers, before training and after each of its epochs so far; ``epochs``:
    of the whole training, the ones at full rank and the others.

    >>> import torch, tdcompress
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    >>> ranks = tdcompress.StableRanks.of(model, epochs=30)
    >>> ranks.sums
    [8.0]
    >>> ranks.measure(model)  # after an epoch in which nothing changed
    >>> ranks.measure(model)
    >>> ranks.ready
    True
    """

    epochs: int
    scales: dict[str, float]
    sums: list[float]

    @staticmethod
    def of(
        model: nn.Module, epochs: int, names: Iterable[str] | None = None, keep: Sequence[str] | None = None
    ) -> StableRanks:
        """Of an untrained ``model``: of the layers of these ``names``, by default of those that ``compress`` takes.

        ``keep``: as ``compress`` has it.
        """
        model = unwrapped(model)
        if names is None:
            apart, wholes = take_apart(model)
            layers = [name for name, layer in apart.named_modules() if kind_by_class(layer) is not None]
            left = left_dense(layers, apart, keep)
            put_back(apart, wholes)
            names = [name for name in layers if name not in left]
        matrices = _matrices(model, names)
        scales = {name: min(matrix.shape) / stable_rank(matrix) for name, matrix in matrices.items()}
        return StableRanks(epochs, scales, [float(sum(min(matrix.shape) for matrix in matrices.values()))])

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> StableRanks:
        """What ``plain`` gave."""
        return StableRanks(**values)

    def plain(self) -> dict[str, Any]:
        """Plain values, to be kept with a checkpoint."""
        return asdict(self)

    def measure(self, model: nn.Module) -> None:
        """Take the ranks of ``model`` at the end of an epoch.

        Raises ``ConfigError`` once it has cores, and for weights that are not finite.
        """
        ranks = {name: stable_rank(matrix) for name, matrix in _matrices(unwrapped(model), self.scales).items()}
        self.sums.append(sum(scale * ranks[name] for name, scale in self.scales.items()))

    @property
    def change(self) -> float:
        """Of the sum, per thirtieth of the training, relative; mean over the last two thirtieths, two epochs at least.

        Infinite before so many epochs have ended.
        """
        window = max(2, round(self.epochs / 15))
        if len(self.sums) <= window:
            return math.inf
        before, now = self.sums[-1 - window], self.sums[-1]
        return abs(now - before) / window * (self.epochs / 30) / now

    @property
    def ready(self) -> bool:
        """Whether the ranks have settled: one may switch."""
        return self.change < THRESHOLD

    @property
    def latest(self) -> int:
        """The epoch after which to switch at the latest."""
        return latest_epoch(self.epochs)


def latest_epoch(epochs: int) -> int:
    """The epoch of so many after which to switch at the latest: a third of them."""
    return max(1, round(epochs / 3))


def stable_rank(matrix: Tensor) -> float:
    """||W||_F^2 / ||W||_2^2; of a matrix of zeros 1."""
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    largest = float(torch.linalg.eigvalsh(gram)[-1])
    return float(gram.trace()) / largest if largest > 0 else 1.0


def _matrices(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The dense weights of the layers of these names, as matrices."""
    weights, names = dense_weights(model), list(names)
    missing = [name for name in names if name not in weights]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} holds no dense weight of its own: stable ranks are measured before a switch, "
            "and not of attention whose queries are not its keys"
        )
    for name in names:
        with naming(name):
            checked(weights[name])
    layers = dict(model.named_modules())
    kinds = {name: kind for name in names if name in layers and (kind := kind_of(layers[name])) is not None}
    matrices = {name: kinds[name].outputs_first(layers[name]) if name in kinds else weights[name] for name in names}
    return {name: matrix.detach().double().flatten(1) for name, matrix in matrices.items()}
