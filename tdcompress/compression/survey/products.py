"""The products that a forward pass consists of, seen where torch dispatches them: whose weights, how many MACs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...tensor.weight import memory

aten = torch.ops.aten


class Products(TorchDispatchMode):
    """While it is entered, counts multiply-accumulates of convolutions and matrix products, of whichever module.

    ``macs``: by the name of the module whose parameters an activation is multiplied with, also where they come out of
    others first (a normalised weight, a view). ``reads``: those of them with the weights of ``layers`` that are not
    ``inside`` a call of one. ``between``: of activations with one another. Products of one module's parameters alone
    are made once for any number of inputs and not counted, nor are those of a backward pass. ``used``: the modules
    whose weights were read, in the order of their first use. ``written``: those of ``layers`` whose weights something
    writes to. ``counting``: turned off, products are not counted. ``layers``: names of modules that own all that lies
    below them.
    """

    def __init__(self, model: nn.Module, layers: Collection[str] = ()) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self.reads: dict[str, int] = {}
        self.inside = False
        self._layers = frozenset(layers)
        self.between = 0
        self.counting = True
        self.used: dict[str, None] = {}
        self.written: set[str] = set()
        self._owner: dict[int, str] = {}
        self._given: dict[int, str] = {}  # who owns a weight's memory
        self._weights: dict[str, set[str]] = {}  # by owner: who owned the memory of its weights before it
        self._kept: list[Tensor] = []  # what comes of parameters alone: a storage that is freed may be another's soon
        for name, module in model.named_modules():
            above = [layer for layer in layers if not layer or f"{name}.".startswith(f"{layer}.")]
            owner = min(above, key=len, default=name)
            if name in layers:
                self._weights.setdefault(name, set())
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                first = self._owner.setdefault(memory(tensor), owner)
                if isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
                    self._weights.setdefault(owner, set()).add(first)
                    self._given.setdefault(memory(tensor), owner)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to have the compiler skip this mode torch would import it, which takes as long as importing torch."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode torch dispatches what consists of several operations as one
            out = func.decompose(*args, **(kwargs or {})) if func.overloadpacket not in _PRODUCTS else NotImplemented
        if out is not NotImplemented:
            return out
        out = func(*args, **(kwargs or {}))
        if func._schema.is_mutable:
            owned = (self._given.get(memory(tensor)) for tensor in _written(func, args, kwargs or {}))
            self.written |= self._layers & set(owned)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        owners = [self._owner.get(memory(tensor)) for tensor in tensors]
        for owner in owners:
            if owner in self._weights:
                self.used.setdefault(str(owner))
        product = _PRODUCTS.get(func.overloadpacket)
        forward = torch._C._current_graph_task_id() == -1  # also where it takes gradients itself
        if product is not None and self.counting and forward:
            self._count(product(*args), *args)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if tensors and None not in owners:
            largest = owners[max(range(len(tensors)), key=lambda k: tensors[k].numel())]
            for tensor in outputs:
                self._owner.setdefault(memory(tensor), str(largest))
            self._kept += outputs
        elif func._schema.is_mutable:  # an activation was written into it
            for tensor in outputs:
                self._owner.pop(memory(tensor), None)
        return out

    def unused(self) -> list[str]:
        """The modules with a weight that was not read, nor that of another which it shares."""
        return [name for name, owners in self._weights.items() if not (owners | {name}) & self.used.keys()]

    def _count(self, found: tuple[int, list[Tensor]], *args: Any) -> None:
        macs, factors = found
        owners = [self._owner.get(memory(factor)) for factor in factors]
        first, last = owners[0], owners[-1]  # a weight comes last; what it is applied to may be a parameter, too
        owner = last if last is not None else first
        if owner is None:
            self.between += macs
        elif first != last:
            self.macs[owner] = self.macs.get(owner, 0) + macs
            if owner in self._layers and not self.inside:
                self.reads[owner] = self.reads.get(owner, 0) + macs


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call of an operation writes to."""
    for k, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[k] if k < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _matrices(a: Tensor, b: Tensor, *_: Any) -> tuple[int, list[Tensor]]:
    """``(.., m, k)`` with ``(.., k, n)``, or vectors."""
    return a.numel() * (b.shape[-1] if b.dim() > 1 else 1), [a, b]


def _added(_: Tensor, a: Tensor, b: Tensor, *__: Any) -> tuple[int, list[Tensor]]:
    return _matrices(a, b)


def _convolution(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any
) -> tuple[int, list[Tensor]]:
    size = x.shape[2:] if transposed else _out_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return x.shape[0] * math.prod(size) * weight.numel(), [x, weight]


def _out_size(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    def along(values: Any, axis: int) -> int:
        return int(values[axis] if len(values) > 1 else values[0])

    return [
        (length + 2 * along(padding, axis) - along(dilation, axis) * (taps - 1) - 1) // along(stride, axis) + 1
        for axis, (length, taps) in enumerate(zip(size, kernel, strict=True))
    ]


def _bilinear(a: Tensor, weight: Tensor, b: Tensor, *_: Any) -> tuple[int, list[Tensor]]:
    return math.prod(a.shape[:-1]) * weight.numel(), [a, weight]


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[int, list[Tensor]]:
    return math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]), [q, k]


_PRODUCTS: dict[Any, Callable[..., tuple[int, list[Tensor]]]] = {
    aten.mm: _matrices,
    aten.bmm: _matrices,
    aten.mv: _matrices,
    aten.dot: _matrices,
    aten.vdot: _matrices,
    aten.addmm: _added,
    aten.baddbmm: _added,
    aten.addbmm: _added,
    aten.addmv: _added,
    aten.convolution: _convolution,
    aten._trilinear: _bilinear,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
}
"""From an operation's arguments to its multiply-accumulates and the tensors multiplied."""
