"""Embeddings whose table is held as cores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..tensor.contraction.cost import Rates
from ..tensor.contraction.lookup import Lookup, compile_lookup, lookup_macs, lookup_paths
from ..tensor.contraction.path import Geometry, Path
from ..tensor.graph import Graph
from .base import Factorised, Planner
from .values import holding


class FactorisedEmbedding(Factorised):
    """``nn.Embedding`` with a factorised weight ``(num_embeddings, dim)``; integers ``(..)`` to rows ``(.., dim)``.

    The weight is oriented as ``nn.Linear``'s: the rows are outputs. The row at ``padding_idx`` is no product of cores,
    because it stays as it was and has no gradient: it is a buffer. Where the weight is also that of other layers, they
    may change this row as any other, and only this layer adds nothing to its gradient.
    """

    lookup = True
    chains = False
    padding_row: Tensor | None

    def __init__(
        self,
        format: str,
        graph: Graph,
        weight_shape: Sequence[int],
        cores: Sequence[Tensor],
        bias: Tensor | None,
        planner: Planner,
        twin: nn.Embedding,
    ) -> None:
        self.padding_idx, self.of_cores = twin.padding_idx, twin.padding_idx is None
        super().__init__(format, graph, weight_shape, cores, bias, planner, twin)
        with torch.inference_mode(False):
            padding = None if twin.padding_idx is None else twin.weight.detach()[twin.padding_idx].clone()
        self.register_buffer("padding_row", padding)

    def redraw(self, weight: Tensor) -> None:
        """See ``Factorised.redraw``; the row at ``padding_idx`` is the weight's."""
        super().redraw(weight)
        if self.padding_row is not None:
            self.padding_row.copy_(weight[self.padding_idx].detach())

    def tie(self, layers: Sequence[Factorised]) -> None:
        """Know of other layers whose cores are the same parameters: all rows are products of these, then."""
        super().tie(layers)
        self.padding_row, self.of_cores = None, True

    def positions(self, input_shape: Sequence[int]) -> int:
        """None: a dense table is only read."""
        return 0

    def geometry(self, batch: int, input_shape: Sequence[int]) -> Geometry:
        """The planner's view of ``batch`` inputs of this shape, an index each of their entries."""
        return Geometry(max(1, batch * math.prod(input_shape)))

    def paths(self, geometry: Geometry, rates: Rates, plan: str) -> list[Path]:
        """The best path, see ``lookup_paths``."""
        return lookup_paths(self.graph, geometry, rates, plan)

    def macs(self, input_shape: Sequence[int], graph: Graph | None = None) -> int:
        """Multiply-accumulates for an input of this shape."""
        return lookup_macs(graph or self.graph, self.plan.path, math.prod(input_shape))

    def compiled(self, path: Path) -> Lookup:
        return compile_lookup(self.graph, path)

    def to_dense(self) -> Tensor:
        """The reconstructed table, its row at ``padding_idx`` as it has always been."""
        table = super().to_dense()
        return table if self.of_cores else self._padded(torch.arange(len(table), device=table.device), table)

    def plain(self) -> nn.Embedding:
        """``nn.Embedding`` that holds ``to_dense()``."""
        rows, dim = self.weight_shape
        return holding(nn.Embedding(rows, dim, self.padding_idx, device="meta"), self.to_dense(), None)

    def forward(self, input: Tensor) -> Tensor:
        indices = input.flatten()
        rows = self.contract(indices, shape=input.shape or (1,))
        rows = rows.to(self._stored()[0].dtype)  # autocast leaves torch's alone, too
        return self._padded(indices, rows).reshape(*input.shape, self.weight_shape[1])

    def _padded(self, indices: Tensor, rows: Tensor) -> Tensor:
        """``rows``, those of ``padding_idx`` as the one that it has, or without a gradient."""
        if self.padding_idx is None:
            return rows
        row = rows.detach() if self.padding_row is None else self.padding_row
        return torch.where((indices == self.padding_idx)[:, None], row, rows)
