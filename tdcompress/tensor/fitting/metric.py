"""Fits in the metric of a layer's inputs: an error of the weight counts as much as it changes the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contraction.plan import merge_all
from ..graph import Graph
from ..weight import over_modes, uncast
from .als import WORK, Part, balanced

RIDGE = 1e-2
"""Of the mean square of an input, added to all of them: directions that a few batches did not show count a little."""

STEPS = 50
"""Most steps of the descent in the whole metric."""

LARGEST = 2304
"""Inputs up to which a moment is taken whole, and multiplied with in the descent: 256 channels times nine taps."""

Fit = Callable[[Graph, Tensor], list[Tensor]]


@dataclass(frozen=True)
class Moment:
    """The uncentred second moment of what a weight is multiplied with.

    ``value``: a matrix, or its diagonal where it has no more; over the channels, inputs or, where a row of the weight
    is looked up (``rows``), outputs, or over inputs times kernel taps, in the weight's order.
    """

    value: Tensor
    rows: bool = False


def fit_in_metric(graph: Graph, weight: Tensor, moment: Moment, fit: Fit) -> list[Tensor]:
    """Cores in single precision for which ||(W - What) X|| is small, X having this ``moment``; W is ``weight``.

    ``fit``: finds cores for a weight in the Frobenius norm. The moment is taken for the Kronecker product of its
    partial traces over the modes that each core has of it, as in K-FAC's sense (Martens and Grosse 2015, section 3);
    the square root S of each part is multiplied onto W along its modes, and its inverse onto the core that has them. Of
    a mode that other cores have, too, each entry has a part of its own. Where one core has all of them (``i`` of a
    linear layer's W; ``i kh kw`` in layout matrix) that is exact: ||(W - What) S|| = ||(W - What) X|| (Zhang et al.
    2016, section 3.1; SVD-LLM, Wang et al. 2025, section 3.1). Where not, the cores go on from there by L-BFGS on tr (W
    - What) M (W - What)^T with the whole moment M, unless it is of more than ``LARGEST`` inputs.
    """
    metric = _Metric(graph, moment)
    weight = over_modes(graph, weight.double())
    for _, part, _ in metric.parts:
        weight = part.times(weight)
    cores = fit(graph, weight.float())
    if not metric.exact and len(metric.whole) <= LARGEST:
        with uncast(weight):
            cores = _descended(graph, weight.float(), metric.seen_through_parts().float(), metric.axes, cores)
    found = [core.double() for core in cores]
    for k, part, inverse in metric.parts:
        axes, blocks = (
            [graph.cores[k].indices.index(graph.modes[axis]) for axis in some] for some in (part.axes, part.blocks)
        )
        found[k] = Part(axes, inverse, blocks).times(found[k])
    return [core.float() for core in balanced(graph, found)]


class _Metric:
    """A moment over the modes of a graph.

    ``axes``: of the weight over ``graph.modes``, those that the moment is over; ``whole``: it, padded as the weight is,
    its mean diagonal entry one; ``parts``: for each core that alone has such modes its position, the root of the
    moment's partial trace over them, and its inverse; ``exact``: whether the parts are all there is of the moment.
    """

    def __init__(self, graph: Graph, moment: Moment) -> None:
        channels = graph.outputs if moment.rows else graph.inputs
        kernel = [mode for mode in graph.modes if mode not in (*graph.inputs, *graph.outputs)]
        count = graph.weight_shape[0 if moment.rows else 1]
        taps = len(moment.value) // count
        modes = [*channels, *(kernel if taps > 1 else ())]
        self.axes = [graph.modes.index(mode) for mode in modes]
        self.sizes = [graph.sizes[mode] for mode in modes]
        missing = graph.padding[0 if moment.rows else 1]
        value = moment.value.double()
        mean = float((value if value.dim() == 1 else value.diagonal()).mean())
        if not mean:
            value = torch.ones_like(value) if value.dim() == 1 else torch.ones_like(value.diagonal()).diag()
        else:
            value = value / mean
        for axis in range(value.dim()):
            split = value.unflatten(axis, (count, taps)).movedim(axis, -1)
            value = F.pad(split, (0, missing)).movedim(-1, axis).flatten(axis, axis + 1)
        ridge = value.new_full((len(value),), RIDGE)
        self.whole = value + (ridge if value.dim() == 1 else ridge.diag())
        self.parts: list[tuple[int, Part, Tensor]] = []
        diagonal, whole = self.whole.dim() == 1, []
        for position, core in enumerate(graph.cores):
            there = [k for k, mode in enumerate(modes) if mode in core.indices]
            blocks = [k for k in there if len(graph.carriers[modes[k]]) > 1]
            own = [k for k in there if k not in blocks]
            if own:
                root, inverse = _roots(self._trace(own, blocks), diagonal)
                part = Part([self.axes[k] for k in own], root, [self.axes[k] for k in blocks])
                self.parts.append((position, part, inverse))
                whole.append(len(there) == len(modes) and (diagonal or not blocks))
        self.exact = whole == [True]

    def _trace(self, own: Sequence[int], blocks: Sequence[int]) -> Tensor:
        """The mean over all other modes, of equal entries of them, where the moment is a matrix; of each block."""
        order = [*blocks, *own, *(k for k in range(len(self.sizes)) if k not in (*own, *blocks))]
        count = len(self.sizes)
        value = self.whole.reshape(self.sizes * self.whole.dim())
        lead, size = (math.prod(self.sizes[k] for k in part) for part in (blocks, own))
        if self.whole.dim() == 1:
            value = value.permute(order).reshape(lead, size, -1).mean(2)
        else:
            value = value.permute([*order, *(count + k for k in order)])
            rest = len(self.whole) // (lead * size)
            value = torch.einsum("naqnbq->nab", value.reshape((lead, size, rest) * 2)) / rest
        return value.reshape([*(self.sizes[k] for k in blocks), *value.shape[1:]])

    def seen_through_parts(self) -> Tensor:
        """The moment once its parts are undone: the identity, if it is their Kronecker product."""
        value = self.whole.reshape(self.sizes * self.whole.dim())
        for side in range(self.whole.dim()):
            for _, part, inverse in self.parts:
                axes, blocks = (
                    [side * len(self.sizes) + self.axes.index(axis) for axis in some]
                    for some in (part.axes, part.blocks)
                )
                value = Part(axes, inverse, blocks).times(value)
                if self.whole.dim() == 1:
                    value = Part(axes, inverse, blocks).times(value)
        return value.reshape(self.whole.shape)


def _roots(moment: Tensor, diagonal: bool) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a matrix, or of a diagonal, and the root's inverse; or of a batch of them."""
    if diagonal:
        return moment.sqrt(), moment.rsqrt()
    values, vectors = torch.linalg.eigh(moment)
    roots = values.clamp(min=RIDGE / 2).sqrt()[..., None, :]
    return (vectors * roots) @ vectors.mT, (vectors / roots) @ vectors.mT


@torch.inference_mode(False)
@torch.enable_grad()
def _descended(graph: Graph, weight: Tensor, moment: Tensor, axes: list[int], cores: Sequence[Tensor]) -> list[Tensor]:
    """The cores after some steps of L-BFGS on tr (W - What) M (W - What)^T; it never ends above its start."""
    weight, moment = weight.clone(), moment.clone()  # which inference mode may have made, then none has gradients
    found = [core.detach().float().clone(memory_format=torch.contiguous_format).requires_grad_() for core in cores]
    before = [core.detach().clone() for core in found]
    last = list(range(-len(axes), 0))
    scale = float(weight.square().sum())
    if not scale:
        return list(cores)

    def loss() -> Tensor:
        error = (weight - merge_all(graph, found)).movedim(axes, last).reshape(-1, len(moment))
        return ((error @ moment if moment.dim() == 2 else error * moment) * error).sum() / scale

    rows = weight.numel() // len(moment)
    steps = min(STEPS, int(WORK / (4 * rows * moment.numel() + 1)))
    descent = torch.optim.LBFGS(
        found, max_iter=steps, max_eval=2 * steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        descent.zero_grad()
        value = loss()
        value.backward()
        return value

    start = float(descent.step(closure).detach())
    return [core.detach() for core in found] if float(loss().detach()) <= start else before
