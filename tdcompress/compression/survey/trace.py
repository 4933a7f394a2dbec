"""What the layers of a model are given, and what they cost, when it sees inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.base import Factorised
from ...layers.kinds import kind_by_class
from ...layers.linear import FactorisedLinear
from .attributes import evaluated
from .inputs import Examples, refuse_lazy, told
from .products import Products

Inputs = Counter[tuple[int, ...]]
"""The shapes of what a layer is given, with the batch dimension, and how often: a recurrent layer calls
its hidden-to-hidden weight once a time step. A plan is made for the first."""


@dataclass
class Trace:
    """What a forward pass shows of a model.

    ``inputs``: of each layer that holds cores, or is of a class in ``KINDS``, in the order in which they are reached.
    ``reads``: of those whose weight other code multiplies with, the multiply-accumulates of that. A linear layer that
    is never called is among ``inputs`` for that, with a row that it was given no times.
    ``macs``: multiply-accumulates of activations with weights, by the name of the module whose parameters those are;
    a layer that holds cores is not among them, because its MACs depend on the plan. ``between``: those of activations
    with one another. ``reached``: every module that owns a weight, in the order of its first use; ``missed``: those
    whose weight no call reads. ``shown``: what the model was shown, in words; ``entries``: how many parameters a module
    with a weight had itself when ``of`` was called, None where it held cores. ``written``: of the layers those whose
    weights the pass writes to.
    """

    inputs: dict[str, Inputs] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    between: int = 0
    reached: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    shown: str = ""
    entries: dict[str, int | None] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    def of(self, model: nn.Module) -> Trace:
        """The same of ``model`` as it is now, where a module may stand for several that were traced below it."""
        known = {name for name, _ in model.named_modules(remove_duplicate=False)}

        def now(name: str) -> str:
            return name if name in known else now(name.rpartition(".")[0])

        macs = Counter[str]()
        for name, n in self.macs.items():
            macs[now(name)] += n
        reached = list(dict.fromkeys(map(now, self.reached)))
        missed = [name for name in dict.fromkeys(map(now, self.missed)) if name not in reached]
        inputs = {name: found for name, found in self.inputs.items() if name in known}
        reads = {name: n for name, n in self.reads.items() if name in inputs}
        entries = {name: _entries(model.get_submodule(name)) for name in (*reached, *missed)}
        written = [name for name in self.written if name in inputs]
        return Trace(inputs, dict(macs), self.between, reached, missed, self.shown, entries, reads, written)

    def changed(self, model: nn.Module) -> list[str]:
        """The modules of ``entries`` that are no longer what they were, but for the ranks of cores."""
        now = dict(model.named_modules(remove_duplicate=False))
        return [name for name, size in self.entries.items() if name not in now or _entries(now[name]) != size]


def _entries(module: nn.Module) -> int | None:
    if isinstance(module, Factorised):
        return None
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def trace(model: nn.Module, examples: Examples) -> Trace:
    """Show ``model`` these inputs.

    Raises ``ConfigError`` where it cannot take them, and for layers that such a pass would give their shapes.
    """
    refuse_lazy(model)
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, Factorised) or kind_by_class(layer)
    }
    found, products = Trace(), Products(model, layers.keys())

    def note(name: str, x: Tensor) -> None:
        found.inputs.setdefault(name, Counter())[tuple(x.shape)] += 1
        products.used.setdefault(name)

    with products, _unfused(), _known_calls(products, layers.values()):
        watch(model, layers, examples, note)
    for name in products.reads.keys() - found.inputs.keys():
        if features := _features(layers[name]):
            found.inputs[name] = Counter({(1, features): 0})
    found.inputs = {name: found.inputs[name] for name in products.used if name in found.inputs}
    found.reads = {name: n for name, n in products.reads.items() if name in found.inputs}
    found.macs = {name: n for name, n in products.macs.items() if not isinstance(layers.get(name), Factorised)}
    found.between, found.reached, found.missed = products.between, list(products.used), products.unused()
    found.written = sorted(products.written)
    found.shown = str(examples)
    return found


def _features(layer: nn.Module) -> int | None:
    """How many inputs a linear layer has; None of another."""
    kind = kind_by_class(layer)
    if isinstance(layer, FactorisedLinear):
        return layer.graph.weight_shape[1]
    linear = kind is not None and issubclass(kind.factorised, FactorisedLinear)
    return kind.outputs_first(layer).shape[1] if kind is not None and linear else None


@contextmanager
def _known_calls(products: Products, layers: Iterable[nn.Module]) -> Iterator[None]:
    """Products told when one of ``layers`` is called; none counted in a lookup: slices of cores are no activations."""

    def calling(inside: bool, count: bool) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            products.inside, products.counting = inside, count

        return hook

    hooks = []
    for layer in layers:
        counted = not (isinstance(layer, Factorised) and layer.lookup)
        hooks.append(layer.register_forward_pre_hook(calling(True, counted), prepend=True))
        hooks.append(layer.register_forward_hook(calling(False, True)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def layer_inputs(model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples) -> dict[str, Tensor]:
    """What each of ``layers`` is given first when ``model`` sees these, in the order in which they are reached."""
    found: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        if name not in found:
            found[name] = x.detach().clone()

    watch(model, layers, examples, note)
    return found


def watch(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Examples, note: Callable[[str, Tensor], None]
) -> None:
    """Show ``examples`` to ``model`` as ``outputs`` does, and ``note`` what each of ``layers`` is given, call by call.

    Of a layer with several inputs, that is the first. Raises ``ConfigError`` where the model cannot take them.
    """

    def noting(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            if given:
                note(name, given[0])

        return hook

    hooks = [layer.register_forward_pre_hook(noting(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with told(examples):
            outputs(model, examples)
    finally:
        for hook in hooks:
            hook.remove()


def outputs(model: nn.Module, examples: Examples) -> Any:
    """What ``model`` makes of ``examples`` in evaluation mode, without gradients; it is left as it was."""
    with evaluated(model):
        return examples.given_to(model)


@contextmanager
def _unfused() -> Iterator[None]:
    """Recurrent layers and attention as products of matrices, not as one call that hides them."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.callback(torch._C._set_mkldnn_enabled, onednn)
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(False)
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def keep_trace(model: nn.Module, seen: Trace | None) -> None:
    """Keep on a compressed ``model`` what its layers are given, see ``kept_trace``; None: no longer."""
    if seen is None:
        vars(model).pop("compression_trace", None)
    else:
        vars(model)["compression_trace"] = seen


def kept_trace(model: nn.Module) -> Trace | None:
    """The trace that a model was compressed with, None of one that was not."""
    found: Trace | None = vars(model).get("compression_trace")
    return found
