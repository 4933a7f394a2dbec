"""Linear layers whose weight is held as cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from ..device.precision import computed
from ..tensor.contraction.path import Geometry
from ..tensor.contraction.plan import Plan
from .base import Factorised
from .own_class import OwnClass
from .values import holding


class FeatureMapLinear(nn.Linear):
    """A linear layer from a flattened feature map ``(c, y, x)`` to ``out_features``; input ``(b, c * y * x)``.

    Compressed, it is a tensor regression layer (Kossaifi et al. 2020, section 3): its weight has the modes c, y, x and
    the outputs, and the map is contracted mode by mode.
    """

    def __init__(self, feature_map: Sequence[int], out_features: int, bias: bool = True) -> None:
        super().__init__(math.prod(feature_map), out_features, bias)
        self.feature_map = tuple(feature_map)


class StepLinear(nn.Linear):
    """A linear layer that one pass applies to many inputs, one after the other, as ``prepared`` gives it."""


def prepared(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer for all inputs of a pass: what is merged of its cores is merged here, once."""
    return partial(layer, weights=layer.weights()) if isinstance(layer, FactorisedLinear) else layer


class FactorisedLinear(Factorised):
    """``nn.Linear`` with a factorised weight ``(out, in)``; input ``(.., in)``, output ``(.., out)``."""

    def positions(self, input_shape: Sequence[int]) -> int:
        """Rows of an input ``(.., in)``."""
        return math.prod(input_shape[:-1])

    def geometry(self, batch: int, input_shape: Sequence[int]) -> Geometry:
        """The planner's view of ``batch`` inputs that are shaped as ``(.., in)``."""
        return Geometry(batch * self.positions(input_shape))

    def plain(self) -> nn.Module:
        """``nn.Linear`` that holds the weight, outputs first."""
        outputs, inputs = self.graph.weight_shape
        weight = self.to_dense()
        module = nn.Linear(inputs, outputs, device="meta")
        return holding(module, weight.T if self.transposed else weight, self.bias)

    def weights(self) -> list[Tensor]:
        """What the plan multiplies with, in the type that autocast computes in: see ``prepared``."""
        if self.infers(self.tensors()[0].detach()):
            return self.merged(self.plan)
        return [weight.to(computed(weight)) for weight in self.plan.weights(self.tensors())]

    def before_product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``(b, in)`` contracted with all but the last core of the plan, and the matrix ``(out, r)`` left of it.

        The output without the bias is the product of the two. Where the plan ends in no such product, the rows are
        those given and the matrix is the whole weight.
        """
        plan, weights = self._inferring(x.shape) if self.infers(x) else (self.plan, None)
        if not isinstance(plan, Plan) or not plan.ends_in_product:
            return x, self.weight
        weights = plan.weights(self.tensors()) if weights is None else weights
        return plan.before_product(x, weights), weights[-1]

    def forward(self, input: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        known = self.known_pass(input) if weights is None else None
        if known is not None:
            return known(input, bias=self.bias)
        if input.dim() == 2:
            return self.contract(input, weights)
        rows = input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
        return self.contract(rows, weights).reshape(*input.shape[:-1], self.graph.weight_shape[0])


class FactorisedConv1D(OwnClass, FactorisedLinear):
    """A linear layer of transformers' class ``Conv1D``, whose weight is ``(in, out)``.

    Folded it is of that class: under its name a weight ``(out, in)`` would be taken for one ``(in, out)`` where it is
    square.
    """
