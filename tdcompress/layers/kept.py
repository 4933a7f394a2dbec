"""What a layer keeps from one input to the next while it only infers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.optim.optimizer import register_optimizer_step_post_hook

T = TypeVar("T")
Marks = list[tuple[int, int, int]]  # of each tensor its id, address and version
Pass = Callable[..., Tensor]  # of a layer: its input, and its ``bias`` by name, to its output
_MOST = 32  # results that are kept; those of the longest ago go first
_steps = 0  # of all optimizers
_never = itertools.count()


class Kept:
    """Results that follow from some tensors, made once and kept for as long as these stay what they are.

    A tensor that is another one, lies elsewhere or was changed in place is noticed, and so are a step of any of torch's
    optimizers (a fused one leaves a tensor's version as it was), and that someone has written to a result. What is
    written through ``.data`` is not, nor to another tensor of all the same memory: whoever may have done so calls
    ``forget``. Of tensors that are parts of another, as ``vector_to_parameters`` leaves several parameters, nothing is
    kept: what is written to that counts no version of theirs.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[Any, int]] = {}  # and the version of those that are tensors
        self._tensors: list[Tensor] = []  # held, so that no other tensor comes by the id of one of them
        self._marks: Marks = []
        self._steps = _steps
        self._pass: tuple[torch.Size, Pass] | None = None

    def forget(self) -> None:
        """Keep nothing."""
        self._found, self._tensors, self._marks, self._pass = {}, [], [], None

    def get(self, tensors: Sequence[Tensor], key: Hashable, make: Callable[[], T]) -> T:
        """What ``make()`` gives, which may depend on ``tensors`` and ``key`` only."""
        marks = _marks(tensors)
        if marks != self._marks or self._steps != _steps:
            self._found, self._tensors, self._marks, self._pass = {}, list(tensors), _lasting(tensors, marks), None
            self._steps = _steps
        found = self._found
        if key not in found or _version(found[key][0]) != found[key][1]:
            with torch.inference_mode(False), torch.no_grad():  # what is made in that mode counts no versions
                made = make()
            found[key] = made, _version(made)
            while len(found) > _MOST:  # making one may have kept others
                del found[next(iter(found))]
        result: T = found[key][0]
        return result

    def keep_pass(self, shape: torch.Size, found: Pass) -> None:
        """Take ``found`` for the next inputs, where they have this shape and autocast is off."""
        self._pass = None if torch._C._is_any_autocast_enabled() else (shape, found)

    def known_pass(self, x: Tensor, tensors: Iterable[Tensor]) -> Pass | None:
        """What was kept last, if it is for inputs like ``x`` and ``tensors`` as they are."""
        if not infers(x) or self._pass is None or self._steps != _steps or torch._C._is_any_autocast_enabled():
            return None
        shape, found = self._pass
        return found if x.shape == shape and _marks(tensors) == self._marks else None

    def __deepcopy__(self, memo: Any) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def _marks(tensors: Iterable[Tensor]) -> Marks:
    try:
        return [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors]
    except RuntimeError:  # made in inference mode, where no version is counted: marks that are never these again
        return [(next(_never), 0, 0)]


def _lasting(tensors: Sequence[Tensor], marks: Marks) -> Marks:
    """``marks``, or such that are never these again where a tensor is part of another, which may be written to."""
    parts = any(tensor.untyped_storage().nbytes() > tensor.nbytes for tensor in tensors)
    return [(next(_never), 0, 0)] if parts else marks


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def _count(*_: Any) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count)


def infers(x: Tensor) -> bool:
    """Whether an input of a layer comes to be inferred from, by plain calls: no gradients, tracer or transform."""
    plain = type(x) is Tensor and not x.is_meta and torch._C._functorch.peek_interpreter_stack() is None
    plain = plain and torch._C._get_tracing_state() is None and forward_ad._current_level < 0
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
