"""A layer of a class of its own, which it keeps when it is dense again."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from .base import Factorised
from .values import holding


class OwnClass(Factorised):
    """A layer whose ``plain()`` is of the very class whose place it took, because none of torch's computes that."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._twin = (_without_values(given[-1]),)  # in a tuple it is no part of the network

    def plain(self) -> nn.Module:
        """A layer of that class that holds ``to_dense()``."""
        return holding(_without_values(*self._twin), self.to_dense(), self.bias)


def _without_values(layer: nn.Module) -> nn.Module:
    """A copy of the layer that has none of its parameters."""
    found = copy.copy(layer)
    found._parameters = dict.fromkeys(layer._parameters)
    return found
