"""The order in which an input and the cores are contracted, as plain data: see ``search`` for how it is found.

The weight tensors that the input meets, one after the other, each a core or a tree of cores that are merged first.
"Reconstruct, then one dense convolution" is the path whose single term is the tree of all cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

Tree = Union[int, tuple["Tree", "Tree"]]
"""A core's position, or two trees that are merged."""


@dataclass(frozen=True)
class Term:
    """One contraction of the activation: with the merged ``tree``, whose indices new to it come out as ``new``.

    ``spread``: a convolution that leaves the activation's other indices among the channels, its kernel repeated in as
    many groups, instead of moving them into the batch: no copy of the activation.
    """

    tree: Tree
    new: tuple[str, ...]
    spread: bool = False


@dataclass(frozen=True)
class Path:
    """Terms in order, and the planner's estimate in seconds, forward and backward."""

    terms: tuple[Term, ...]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Lists and numbers only, for a file."""
        terms = [[_listed(term.tree), list(term.new), term.spread] for term in self.terms]
        return {"terms": terms, "seconds": self.seconds}

    @staticmethod
    def from_plain(values: dict[str, Any]) -> Path:
        """The path that ``plain`` wrote down."""
        terms = (Term(_paired(tree), tuple(new), spread) for tree, new, spread in values["terms"])
        return Path(tuple(terms), values["seconds"])


def _listed(tree: Tree) -> Any:
    return tree if isinstance(tree, int) else [_listed(tree[0]), _listed(tree[1])]


def _paired(tree: Any) -> Tree:
    return tree if isinstance(tree, int) else (_paired(tree[0]), _paired(tree[1]))


@dataclass(frozen=True)
class Geometry:
    """The input as the planner sees it: images in a batch; ``space`` maps [z,] y and x to (size before, size after) the
    convolution along that axis, and is empty for a linear layer. ``transposed``: every tap meets every pixel of the
    input, not of the output. ``uses``: how many inputs share what is merged of the cores; infinitely many in a network
    that only infers, where merging costs nothing."""

    batch: int
    space: tuple[tuple[str, tuple[int, int]], ...] = ()
    uses: float = 1
    transposed: bool = False
