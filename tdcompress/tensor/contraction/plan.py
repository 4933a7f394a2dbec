"""A contraction path compiled to a straight list of calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import Graph
from .calls import Batched, Conv, Convolution, Kernel, Linear, Merge, Scale, Step, Weight
from .cost import Rates
from .path import Path, Tree
from .roles import convolves, others, parts
from .search import merge_tree
from .walk import Meeting, walk


@dataclass(frozen=True)
class Plan:
    """The compiled path of one layer; ``text`` names its calls in order."""

    path: Path
    space: tuple[str, ...]
    merges: tuple[Merge, ...]
    steps: tuple[Step, ...]
    in_sizes: tuple[int, ...]
    out_channels: int
    padding: tuple[int, int]  # channels that the first call does not do without, and those that the last puts out
    order: tuple[int, ...] | None
    fuse_bias: bool  # the last call yields the output channels and can add the bias itself
    text: str
    straight: bool  # all calls are convolutions of what lies right as torch has it

    def __call__(self, x: Tensor, cores: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
        """Contract ``x`` with the cores and add the bias.

        Images ``(b, in, [z,] y, x)``, best channels last, become ``(b, out, [z',] y', x')``; rows ``(b, in)`` become
        ``(b, out)``.
        """
        return self.apply(x, self.weights(cores), bias)

    def weights(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """What the calls multiply with, one tensor a call: cores, and products of them."""
        slots = list(cores)
        for merge in self.merges:
            slots.append(merge(slots))
        return [step.weight(slots) for step in self.steps]

    def apply(self, x: Tensor, weights: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
        """Contract ``x`` with what ``weights`` gave and add the bias."""
        if self.straight:
            end = len(weights) - 1
            for place, conv in enumerate(cast("tuple[Conv, ...]", self.steps)):
                x = conv.moves(x, weights[place], bias if place == end else None, conv.groups)
            return x
        if self.space:
            x = x.permute(0, *range(2, x.dim()), 1)
        lead = x.dim() - 1
        x = self._before_last(x, weights)
        last, weight = self.steps[-1], weights[-1]
        if self.fuse_bias and isinstance(last, Conv) and last.order is None:
            # Not a view of it: the activation function behind may then work in place without a copy.
            return last.convolved(x, weight, bias)
        x = last(x, weight, bias) if self.fuse_bias and isinstance(last, (Linear, Conv)) else last(x, weight)
        if self.order is not None:
            x = x.permute(self.order)
        if len(x.shape) > lead + 1:
            x = x.reshape(*x.shape[:lead], self.out_channels + self.padding[0])
        if self.padding[0]:
            x = x[..., : self.out_channels]
            x = x.contiguous() if bias is None else x
        if bias is not None and not self.fuse_bias:
            x = x + bias.to(x.dtype)
        return x.permute(0, lead, *range(1, lead)) if self.space else x

    def _before_last(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        if self.padding[1]:
            x = F.pad(x, (0, self.padding[1]))
        if torch.onnx.is_in_onnx_export():  # whose unflatten is of one batch size
            x = x.reshape(*x.shape[:-1], *self.in_sizes)
        else:  # unlike reshape, it refuses an empty batch of another width
            x = x.unflatten(-1, self.in_sizes)
        for step, weight in zip(self.steps[:-1], weights, strict=False):
            x = step(x, weight)
        return x

    @property
    def ends_in_product(self) -> bool:
        """Whether the last call multiplies rows with one matrix ``(out, summed)`` and gives the output."""
        return self.fuse_bias and isinstance(self.steps[-1], Linear)

    def before_product(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The rows ``(.., summed)`` that this last call multiplies, of rows ``(.., in)``."""
        last = cast(Linear, self.steps[-1])
        return last.rows(self._before_last(x, weights))

    def by(self, weights: Sequence[Tensor]) -> Callable[..., Tensor]:
        """``apply`` with these weights: of an input and, by name, a ``bias``."""
        first = self.steps[0]
        if self.straight and len(weights) == 1 and isinstance(first, Conv):
            return first.moves.by(weights[0], first.groups)
        return partial(self.apply, weights=weights)

    def moving(self, convolution: Convolution) -> Plan:
        """The same plan with other settings of the convolution."""
        steps = tuple(
            replace(step, moves=convolution.along(step.axes)) if isinstance(step, Conv) else step for step in self.steps
        )
        return replace(self, steps=steps)


class Compiler:
    """Emits ``merges`` of weight tensors, which it keeps in numbered slots: the cores first, then each product.

    ``slots``: the indices of each; ``members``: the cores it is made of; ``names``: what it is called in a plan's text.
    """

    def __init__(self, graph: Graph, convolution: Convolution | None = None) -> None:
        self.graph, self.convolution = graph, convolution
        self.slots: list[tuple[str, ...]] = [core.indices for core in graph.cores]
        self.members: list[frozenset[int]] = [frozenset({k}) for k in range(len(graph.cores))]
        self.names: list[str] = [core.name for core in graph.cores]
        self.merges: list[Merge] = []

    def sizes(self, indices: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.graph.sizes[index] for index in indices)

    def size(self, indices: Sequence[str]) -> int:
        return math.prod(self.sizes(indices))

    def merge(self, tree: Tree) -> int:
        """Emit the merges of a tree; returns the slot of its result."""
        if isinstance(tree, int):
            return tree
        left, right = self.merge(tree[0]), self.merge(tree[1])
        a, b, members = self.slots[left], self.slots[right], self.members[left] | self.members[right]
        need = parts(a, b, self.graph.beyond(members).union(self.graph.modes))
        elementwise = not need.summed
        inner = need.summed
        left_order = (*need.group, *need.kept, *inner)
        right_order = (*need.group, *inner, *need.new)
        group = (self.size(need.group),) if need.group else ()
        self.merges.append(
            Merge(
                left,
                right,
                tuple(a.index(i) for i in left_order),
                tuple(b.index(i) for i in right_order),
                (*group, self.size(need.kept), self.size(inner)),
                (*group, self.size(inner), self.size(need.new)),
                self.sizes((*need.group, *need.kept, *need.new)),
                elementwise,
            )
        )
        self.slots.append((*need.group, *need.kept, *need.new))
        self.members.append(members)
        self.names.append(f"({self.names[left]}*{self.names[right]})")
        return len(self.slots) - 1

    def apply(self, meeting: Meeting) -> tuple[Step, str]:
        """Emit the merges of a term; returns the call that contracts the activation with it, and its text."""
        term, need, wanted, moves = meeting.term, meeting.need, meeting.wanted, self.convolution
        slot = self.merge(term.tree)
        indices = self.slots[slot]
        permute = None if wanted == meeting.before else tuple(meeting.before.index(i) for i in wanted)
        summed, new = meeting.summed, self.sizes(term.new)
        group = tuple(i for i in wanted if i in need.group)
        tail = tuple(i for i in wanted if i in need.summed)

        read = None
        if (meeting.new, summed) != (math.prod(new), self.size(need.summed)):
            read, new = (meeting.new, summed), new if meeting.new == math.prod(new) else (meeting.new,)
        spread = others(need) if term.spread else ()
        copies = self.size(spread)

        def weight(*arrangement: str, shape: tuple[int, ...], kind: type[Weight] = Weight) -> Weight:
            return kind(slot, tuple(indices.index(i) for i in arrangement), shape, copies, read)

        step: Step
        if moves is not None and convolves(wanted, need, bool(meeting.axes), moves.space):
            axes = tuple(mode for mode in moves.modes if mode in indices)
            moves = moves.along(axes)
            taps = tuple(self.graph.sizes[mode] if mode in axes else 1 for mode in moves.modes)
            rows, columns = (*group, *term.new), tail
            if moves.transposed:  # as torch has its kernel
                rows, columns, read = (*group, *tail), term.new, read and read[::-1]
            shape = (self.size(rows), self.size(columns), *taps)
            kernel = weight(*rows, *columns, *axes, shape=shape, kind=Kernel)
            step = Conv(
                kernel,
                permute,
                wanted.index(moves.space[0]),
                copies * self.size(group) * summed,
                copies * self.size(group),
                (*self.sizes(spread), *self.sizes(group), *new),
                axes,
                moves,
            )
            text = "x".join(map(str, taps)) + ("^T" if moves.transposed else "")
            text += f"/{copies * self.size(group)}" if group or spread else ""
        elif group and not tail and not term.new:
            broadcast = tuple(self.graph.sizes[i] if i in group else 1 for i in wanted)
            step, text = Scale(weight(*group, shape=broadcast)), "*"
        elif group:
            matrix = weight(*group, *tail, *term.new, shape=(self.size(group), summed, math.prod(new)))
            step, text = Batched(matrix, permute, len(group), len(wanted) - len(tail), summed, new), "bmm"
        else:
            matrix = weight(*term.new, *tail, shape=(self.size(term.new), self.size(need.summed)))
            step, text = Linear(matrix, permute, len(wanted) - len(tail), summed, new), "linear"
        return step, f"{self.names[slot]}:{text}"


def compile_path(graph: Graph, path: Path, convolution: Convolution | None = None) -> Plan:
    """Compile ``path`` for ``graph``; ``convolution``: how kernel modes move over an activation that is an image."""
    compiler = Compiler(graph, convolution)
    space = convolution.space if convolution else ()
    steps, texts = [], []
    meetings = list(walk(graph, path, space))
    for meeting in meetings:
        step, text = compiler.apply(meeting)
        steps.append(step)
        texts.append(text)
    first, last = meetings[0], meetings[-1]
    final = ("b", *space, *graph.outputs)
    permute = None if last.after == final else tuple(last.after.index(i) for i in final)
    beyond, missing = graph.padding
    fuse_bias = last.closes and isinstance(steps[-1], Linear | Conv)
    straight = all(isinstance(step, Conv) and step.order is None and step.lead == 1 for step in steps)
    return Plan(
        path,
        space,
        tuple(compiler.merges),
        tuple(steps),
        (first.summed,) if first.reads else compiler.sizes(graph.inputs),
        compiler.size(graph.outputs) - beyond,
        (0 if last.writes else beyond, 0 if first.reads else missing),
        permute,
        fuse_bias,
        " > ".join(texts),
        straight and fuse_bias and permute is None and (first.reads or not missing),
    )


@dataclass(frozen=True)
class Contraction:
    """All tensors of a graph merged into one over its modes; a mode may sit on several of them."""

    merges: tuple[Merge, ...]
    order: tuple[int, ...]

    def __call__(self, cores: Sequence[Tensor]) -> Tensor:
        slots = list(cores)
        for merge in self.merges:
            slots.append(merge(slots))
        return slots[-1].permute(self.order)

    @property
    def largest(self) -> int:
        """Entries of the largest product."""
        return max((math.prod(merge.shape) for merge in self.merges), default=0)

    def seconds(self, rates: Rates) -> float:
        """The cost model's estimate, forward and backward."""
        total = 0.0
        for merge in self.merges:
            *group, kept, summed = merge.left_shape
            sizes = (math.prod(merge.left_shape), math.prod(merge.right_shape), math.prod(merge.shape))
            total += rates.contraction(kept, math.prod(group), summed, merge.right_shape[-1], 1, sizes)
        return total


@lru_cache(maxsize=4096)
def compile_tree(graph: Graph, tree: Tree) -> Contraction:
    """Compile the merging of all cores in the order that ``tree`` says."""
    compiler = Compiler(graph)
    indices = compiler.slots[compiler.merge(tree)]
    return Contraction(tuple(compiler.merges), tuple(indices.index(mode) for mode in graph.modes))


def merge_all(graph: Graph, cores: Sequence[Tensor]) -> Tensor:
    """The cores merged into one tensor over the graph's modes, in their order."""
    return compile_tree(graph, merge_tree(graph))(cores)
