"""Cores that fit a given dense weight, for any graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor

from ..caps import capped
from ..graph import Graph
from ..norm import squared_norm
from ..weight import over_modes, to_dense, uncast
from .als import WORK, alternate, balanced, work
from .bounded import CANCELLING, SLACK, bounded, cancellation
from .expansion import expansions
from .opening import openings
from .padding import padded
from .truncation import leading, truncate

EXACT = 3e-7
"""Of ||W||: a fit that is constructed and loses no more loses nothing but digits."""

RESTARTS, CHEAP = 2, 1e5
"""How many random starts are tried at each rank as well, and the most multiply-adds of their sweeps: small fits are
caught in local minima, large ones are not worth the time."""

POLISH, FINE = 3e8, 3e-5
"""Multiply-adds, and the part of the squared error that a sweep must gain, of the sweeps that the best of all fits gets
on top: rings come to their minimum slowly."""

FREE = (2, 4, 8, 16)
"""Sweeps without a penalty at the very end, which give back what it took of the norm of W: little of the error, but a
network that is not trained on sees less of every layer."""

GROWN = 1.5
"""How many times as much components may cancel after those sweeps; of them as many are taken as leave it at that."""

GROWTH = 0.25
"""The part of ``WORK`` that is spent at each rank on the way: what is found there is only a start."""

Fit = tuple[float, list[Tensor]]
"""The relative error of cores once they are rounded, and the cores, in double precision."""

Algorithm = Callable[[Graph, Tensor, int, int], list[Tensor]]
"""From a graph, a weight of norm one over its modes, most sweeps and a seed to cores that fit it, in any precision."""


def own(graph: Graph, weight: Tensor, sweeps: int, seed: int) -> list[Tensor]:
    """The algorithms of this package, see ``decompose``; cores in double precision."""
    for position, core in enumerate(graph.cores):
        others = tuple(other for other in graph.cores if other != core)
        modes = tuple(mode for mode in graph.modes if mode not in core.indices)
        if _only_weights(graph, position):
            rest, value = replace(graph, cores=others, modes=modes), weight.new_ones(graph.shape(core))
        elif _only_joins(graph, position):
            kept, gone = (index for index in core.indices if index in graph.bonds)
            size = min(graph.sizes[kept], graph.sizes[gone])
            others = tuple(replace(o, indices=tuple(kept if i == gone else i for i in o.indices)) for o in others)
            rest = replace(graph, cores=others, modes=modes, sizes={**graph.sizes, kept: size})
            value = torch.eye(size, device=weight.device).reshape(
                [size if index in (kept, gone) else 1 for index in core.indices]
            )
        else:
            continue
        cores = own(rest, weight.reshape([graph.sizes[mode] for mode in modes]), sweeps, seed)
        return padded(graph, [*cores[:position], value.to(cores[0]), *cores[position:]], seed)
    if _is_matrix(graph):
        return _halves(graph, weight.double())
    return (truncate if graph.is_tree else _grown)(graph, weight, sweeps, seed)


def _only_weights(graph: Graph, position: int) -> bool:
    """Whether a core only weights the components of a hyperedge that joins others: its modes have a single value.

    Such is that of the kernel in a CP of a 1x1 convolution, which without it is a matrix, and has a best fit.
    """
    bonds = [index for index in graph.cores[position].indices if index in graph.bonds]
    return _is_single(graph, position) and len(bonds) == 1 and len(graph.carriers[bonds[0]]) > 2


def _only_joins(graph: Graph, position: int) -> bool:
    """Whether a core of a cycle only joins two others, its modes having a single value.

    Such is that of the kernel in the ring of a 1x1 convolution, which with an identity in its place is a matrix, too.
    """
    bonds = [index for index in graph.cores[position].indices if index in graph.bonds]
    neighbours = {k for bond in bonds for k in graph.carriers[bond]} - {position}
    pairs = len(bonds) == 2 and all(len(graph.carriers[bond]) == 2 for bond in bonds)
    return _is_single(graph, position) and pairs and len(neighbours) == 2 and not graph.is_tree


def _is_single(graph: Graph, position: int) -> bool:
    """Whether the modes of a core, which are on no other, have a single value."""
    modes = [index for index in graph.cores[position].indices if index in graph.modes]
    return graph.mode_size([position]) == 1 and all(len(graph.carriers[mode]) == 1 for mode in modes)


def _is_matrix(graph: Graph) -> bool:
    """Whether there are two cores with no mode in common, on several bonds: as one bond of all their values would."""
    return len(graph.cores) == 2 and len(graph.bonds) > 1 and all(len(graph.carriers[m]) == 1 for m in graph.modes)


def _halves(graph: Graph, weight: Tensor) -> list[Tensor]:
    """The truncated singular value decomposition of a weight that is held by two cores."""
    rows, columns = ([index for index in core.indices if index in graph.modes] for core in graph.cores)
    matrix = weight.permute([graph.modes.index(i) for i in (*rows, *columns)]).reshape(graph.mode_size([0]), -1)
    values = math.prod(graph.ranks.values())
    basis = leading(matrix, values)
    left = F.pad(basis, (0, values - basis.shape[1])).T
    right = left @ matrix
    singular = right.norm(dim=1, keepdim=True)
    scale = torch.where(singular > 0, singular.sqrt(), 1.0)
    found = []
    for core, half, modes in zip(graph.cores, (left * scale, right / scale), (rows, columns), strict=True):
        value = half.reshape([graph.sizes[i] for i in (*graph.bonds, *modes)])
        found.append(value.permute([(*graph.bonds, *modes).index(i) for i in core.indices]))
    return found


def decompose(
    graph: Graph, weight: Tensor, sweeps: int = 100, seed: int = 0, algorithm: Algorithm = own
) -> list[Tensor]:
    """Cores, in the graph's order and shapes and the weight's dtype, that fit ``weight`` in the Frobenius norm.

    ``weight``: float32 or float64, as ``over_modes`` takes it; what it is padded with is fitted as zeros. Two cores,
    and those that a core without modes only weights or joins, get the singular value decomposition of a matrix. Graphs
    without cycles and hyperedges are truncated from the leaves to the root and refined by two-site updates. The others
    grow from rank one (a random start, ``seed``) through the powers of two, each bond to its own rank. At every step
    the smaller fit is padded, improved by alternating least squares, and kept if it is still the best once it is
    rounded to the weight's dtype; small networks are also fitted from other starts, and the last fit is swept on, its
    norms are bounded where components cancel, and at last it is freed of the penalty. At the ranks asked for there are
    the fits that can be constructed as well (``openings``, ``expansions``). So the error does not grow with the rank.
    At most ``sweeps`` sweeps at each step, fewer once they stop helping. Nothing larger than a few times the weight is
    formed. The scale is shared evenly over the cores, which are contiguous. Another ``algorithm`` is another way to all
    but that.

    Raises ``ValueError`` where the weight is not finite.
    """
    weight, graph = over_modes(graph, weight.detach()), graph.whole
    norm = weight.double().norm()
    if not norm.isfinite():
        raise ValueError("the weight holds numbers that are not finite")
    if norm == 0:
        return [weight.new_zeros(graph.shape(core)) for core in graph.cores]
    share = norm ** (1 / len(graph.cores))
    with uncast(weight):
        cores = algorithm(graph, (weight.double() / norm).to(weight.dtype), sweeps, seed)
    return [(core * share).to(weight.dtype).contiguous() for core in balanced(graph, cores)]


def _grown(graph: Graph, weight: Tensor, sweeps: int, seed: int) -> list[Tensor]:
    """The best fit of a weight of norm one on a graph with cycles or hyperedges, in double precision."""

    def fit(graph: Graph, cores: list[Tensor]) -> Fit:
        return relative_error(graph, [core.to(weight.dtype) for core in cores], weight), cores

    constructed = _constructed(graph, weight.double())
    if constructed and (found := fit(graph, padded(graph, constructed, seed)))[0] < EXACT:
        return found[1]
    generator = torch.Generator().manual_seed(seed)
    best: Fit = (math.inf, _gaussian(graph.with_ranks(dict.fromkeys(graph.bonds, 1)), weight, generator))
    for step in _steps(graph):
        best = best[0], padded(step, best[1], seed)
        if step is graph and constructed:
            best = min(best, found, key=itemgetter(0))
        limit, least = (WORK, 2) if step is graph else (GROWTH * WORK, _least(step))
        best = min(best, fit(step, alternate(step, weight, best[1], sweeps, limit, least=least)), key=itemgetter(0))
        for _ in range(RESTARTS if work(step) < CHEAP else 0):
            if best[0] > EXACT:
                another = alternate(step, weight, _gaussian(step, weight, generator), sweeps)
                best = min(best, fit(step, another), key=itemgetter(0))
    if best[0] > EXACT:
        swept = alternate(graph, weight, best[1], 2 * sweeps, POLISH, FINE, least=_least(graph))
        best = min(best, fit(graph, swept), key=itemgetter(0))
    if best[0] > EXACT and cancellation(graph, best[1]) > CANCELLING:
        smaller = fit(graph, bounded(graph, weight.double(), best[1], (1 + SLACK / 2) * best[0]))
        best = smaller if smaller[0] <= (1 + SLACK) * best[0] else best  # it was rounded
    allowed = max(CANCELLING, GROWN * cancellation(graph, best[1]))
    for count in FREE if best[0] > EXACT else ():
        limit, least = GROWTH * WORK * count / sum(FREE), _least(graph) if count == FREE[0] else 0
        free = fit(graph, alternate(graph, weight, best[1], count, limit, FINE, 0.0, least))
        if free[0] >= best[0] or cancellation(graph, free[1]) > allowed:
            break
        best = free
    return best[1]


def _least(graph: Graph) -> int:
    """How many sweeps are made at any price where a fit neither begins nor ends with them."""
    return 2 if work(graph) <= WORK else 0


def _constructed(graph: Graph, weight: Tensor) -> list[Tensor] | None:
    """Cores of the best fit that is constructed, if there is any: of projections of W the one with the largest norm."""
    fits = chain(openings(graph, weight), expansions(graph, weight))
    found = max(fits, key=lambda fit: float(squared_norm(*fit)), default=None)
    return found and found[1]


def _gaussian(graph: Graph, weight: Tensor, generator: torch.Generator) -> list[Tensor]:
    shapes = [graph.shape(core) for core in graph.cores]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") for shape in shapes]
    return [value.to(weight.device) for value in drawn]


def _steps(graph: Graph) -> list[Graph]:
    """The graph at ranks 1, 2, 4 .., each bond up to its own, and at last as it is."""
    largest = max(graph.ranks.values(), default=1)
    powers = [2**power for power in range((largest - 1).bit_length())]
    return [*(capped(graph, {b: min(n, power) for b, n in graph.ranks.items()}) for power in powers), graph]


def relative_error(graph: Graph, cores: Sequence[Tensor], weight: Tensor) -> float:
    """||W - What|| / ||W||, in double precision; zero where both are zero, infinite where only the weight is."""
    weight = weight.detach().double().flatten()
    error = (to_dense(graph, [core.detach().double() for core in cores]).flatten() - weight).norm()
    return float(error / weight.norm()) if error > 0 else 0.0
