"""What a layer keeps from one input to the next while it only infers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Pass = Callable[..., Tensor]  # of a layer: its input, and its ``bias`` by name, to its output
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
        self._pass: tuple[torch.Size, Pass] | None = None

    def forget(self) -> None:
        """Keep nothing."""
        self._found, self._tensors, self._marks, self._pass = {}, [], [], None

    def get(self, tensors: Sequence[Tensor], key: Hashable, make: Callable[[], T]) -> T:
        """What ``make()`` gives, which may depend on ``tensors`` and ``key`` only."""
        marks = _marks(tensors)
        if marks != self._marks:
            self._found, self._tensors, self._marks, self._pass = {}, list(tensors), marks, None
        found = self._found
        if key not in found:
            if len(found) == _MOST:
                del found[next(iter(found))]
            found[key] = make()
        result: T = found[key]
        return result

    def keep_pass(self, shape: torch.Size, found: Pass) -> None:
        """Take ``found`` for the next inputs, where they have this shape and autocast is off."""
        self._pass = None if torch._C._is_any_autocast_enabled() else (shape, found)

    def known_pass(self, x: Tensor, tensors: Iterable[Tensor]) -> Pass | None:
        """What was kept last, if it is for inputs like ``x`` and ``tensors`` as they are."""
        if not infers(x) or self._pass is None or torch._C._is_any_autocast_enabled():
            return None
        shape, found = self._pass
        return found if x.shape == shape and _marks(tensors) == self._marks else None

    def __deepcopy__(self, memo: Any) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def _marks(tensors: Iterable[Tensor]) -> list[tuple[int, int, int]]:
    try:
        return [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors]
    except RuntimeError:  # made in inference mode, where no version is counted
        return [(id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def infers(x: Tensor) -> bool:
    """Whether an input of a layer comes to be inferred from, by plain calls: no gradients, compiler or transform."""
    plain = type(x) is Tensor and torch._C._functorch.peek_interpreter_stack() is None
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
