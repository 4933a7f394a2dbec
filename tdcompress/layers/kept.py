"""What a layer keeps from one input to the next while it only infers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_MOST = 8  # results that are kept; those of the longest ago go first


class Kept:
    """Results that follow from some tensors, made once and kept for as long as these stay what they are.

    A tensor that is another one, lies elsewhere or was changed in place is noticed, but not every change in place: a
    fused optimizer and what is written through ``.data`` leave a tensor's version as it was. Whoever may have made such
    a change calls ``forget``.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}
        self._tensors: list[Tensor] = []  # held, so that no other tensor comes by the id of one of them
        self._marks: list[tuple[int, int, int]] = []

    def forget(self) -> None:
        """Keep nothing."""
        self._found, self._tensors, self._marks = {}, [], []

    def get(self, tensors: Sequence[Tensor], key: Hashable, make: Callable[[], T]) -> T:
        """What ``make()`` gives, which may depend on ``tensors`` and ``key`` only."""
        try:
            marks = [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors]
        except RuntimeError:  # made in inference mode, where no version is counted
            marks = [(id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        if marks != self._marks:
            self._found, self._tensors, self._marks = {}, list(tensors), marks
        found = self._found
        if key not in found:
            if len(found) == _MOST:
                del found[next(iter(found))]
            found[key] = make()
        result: T = found[key]
        return result

    def __deepcopy__(self, memo: Any) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def infers(x: Tensor) -> bool:
    """Whether an input of a layer comes to be inferred from, by plain calls: no gradients, compiler or transform."""
    plain = type(x) is Tensor and torch._C._functorch.peek_interpreter_stack() is None
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
