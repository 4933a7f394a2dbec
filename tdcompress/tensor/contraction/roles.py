"""What part each index has in a contraction, and how an activation must lie in memory for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KERNEL = {"kd": "z", "kh": "y", "kw": "x"}
"""Kernel modes, and the spatial index of the input along which each convolves; of fewer axes the last."""
MODES = {space: mode for mode, space in KERNEL.items()}


@dataclass(frozen=True)
class Parts:
    """The part each index has in a contraction of a left with a right tensor.

    ``group``: on both and needed afterwards; ``summed``: on both and finished; ``kept``: only left; ``new``: only
    right (kernel modes are none of these).
    """

    group: tuple[str, ...]
    summed: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]


def parts(left: Sequence[str], right: Sequence[str], needed: frozenset[str]) -> Parts:
    """Sort the indices of two tensors by their part; ``needed``: the indices used after this contraction."""
    shared = [index for index in left if index in right]
    return Parts(
        group=tuple(index for index in shared if index in needed),
        summed=tuple(index for index in shared if index not in needed),
        kept=tuple(index for index in left if index not in right),
        new=tuple(index for index in right if index not in left),
    )


def arranged(
    order: Sequence[str], need: Parts, kernel: bool, space: Sequence[str], spread: bool = False
) -> tuple[str, ...]:
    """The order in which the activation must lie for a contraction, as near to ``order`` as it allows.

    A convolution wants ``(.., space, group, summed)``, or ``(b, space, .., group, summed)`` if it is ``spread``, a
    matrix product ``(.., summed)``, a batched one ``(group, .., summed)``, an elementwise product any order. ``space``:
    the spatial indices, in the order in which they lie, none for rows.
    """
    ends = need.group + need.summed
    if spread:
        return ("b", *space, *others(need), *ends)
    if kernel or (need.group and space and (need.summed or need.new)):
        lead = tuple(i for i in order if i not in ends and i not in space)
        return (*lead, *space, *ends)
    if need.group and not need.summed and not need.new:
        return tuple(order)
    lead = tuple(i for i in order if i not in ends)
    return (*need.group, *lead, *(i for i in order if i in need.summed))


def others(need: Parts) -> tuple[str, ...]:
    """The indices of an activation of images that a contraction leaves alone, beside batch and pixels."""
    return tuple(index for index in need.kept if index not in ("b", *MODES))


def convolves(order: Sequence[str], need: Parts, kernel: bool, space: Sequence[str]) -> bool:
    """Whether the contraction of an activation that lies as ``arranged`` says runs as a convolution.

    Besides those along a kernel axis: products at every pixel, which are 1x1 convolutions where the images lie whole.
    """
    if kernel or not space or not (need.summed or need.new):
        return kernel
    ends = {*need.group, *need.summed}
    whole = ("b", *space)
    return bool(need.group) or (tuple(order[: len(whole)]) == whole and set(order[len(whole) :]) == ends)


def result(order: Sequence[str], need: Parts, new: Sequence[str]) -> tuple[str, ...]:
    """The order after the contraction of an activation that lies as ``arranged`` says."""
    return (*(index for index in order if index not in need.summed), *new)
