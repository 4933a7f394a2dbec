"""Whether a model computes with the cores that its layers are held as, and what it computed with the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from itertools import product
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...layers.base import Factorised
from ...layers.conv import FactorisedConv
from ...layers.kinds import kind_by_class
from ...tensor.errors import ConfigError
from ...tensor.weight import extent, memory
from .inputs import Examples, said_of
from .trace import outputs

_TF32 = 0.01  # what the rounding of products may add up to; what is of another kind is far larger
_FLOAT32 = 0.001
_LISTS = (list, tuple, set)
_CLOSED = (type, FunctionType, ModuleType, Mapping, *_LISTS)  # whose attributes are not what it holds
Swapped = Mapping[nn.Module, Factorised]
"""From layers of a model to what takes their places."""


@dataclass(frozen=True)
class Agreement:
    """What a model is shown, and what it has to give for it once its layers are ``swapped``.

    ``names``: of these layers, by what takes their places.
    """

    swapped: Swapped
    names: Mapping[Factorised, str]
    examples: Examples
    wanted: Any

    @staticmethod
    def of(model: nn.Module, swapped: Swapped, examples: Examples) -> Agreement:
        """What ``model`` gives while the layers are in their places, but call what is to take them.

        Their weights are, for code that reads them, these put together. In place of an input of zeros it is shown two
        of numbers from 0 to 1, where it takes them: zeros are what many layers make of zeros, and one image lies
        channels last in any case.
        """
        names = {swapped[layer]: name for name, layer in model.named_modules() if layer in swapped}
        with ExitStack() as stack:
            for layer, new in swapped.items():
                _read(stack, layer, partial(getattr, new, "weight"))
                vars(layer)["forward"] = new.forward  # which no layer that is swapped has of its own
                stack.callback(vars(layer).pop, "forward")
                _keeping_nothing(stack, new)
                stack.callback(vars(new).update, contiguous=new.contiguous)
            for shown, contiguous in product(_shown(examples, 2), (True, False)):
                for new in names:
                    new.contiguous = contiguous
                try:
                    return Agreement(swapped, names, shown, outputs(model, shown))
                except Exception as error:  # anyone's code, which may take one of zeros only, or view what lies so
                    failure = error
            raise ConfigError(f"the model cannot take {examples}: {said_of(failure)}") from failure

    def check(self, model: nn.Module) -> None:
        """Raise ``ConfigError`` where ``model``, whose layers are swapped, gives something else, saying what to do.

        Outputs of convolutions that it views as if they were not channels last are made contiguous from now on.
        """
        self._refuse_kept(model)
        lost = {self.names[new]: layer._parameters[_weight(layer)] for layer, new in self.swapped.items()}
        with ExitStack() as stack:
            stack.enter_context(_Lost({name: weight for name, weight in lost.items() if weight is not None}))
            for layer, new in self.swapped.items():
                _read(stack, layer, partial(_refuse_read, self.names[new]))
                _keeping_nothing(stack, new)
            found = self._given(model)
            # A model that gives something else every time says nothing.
            rounding = rounding_of(model)
            if differ(found, self.wanted, rounding) and not differ(self._given(model), found, rounding):
                raise ConfigError(
                    "the model computes something else once its layers hold cores, though from the same weights: it "
                    "may ask for a layer's class or treat some otherwise than by calling them; say by keep which stay "
                    "dense"
                )

    def _refuse_kept(self, model: nn.Module) -> None:
        """Raise ``ConfigError`` where an attribute, or a container that is one, holds such a layer or its weight."""
        layers = {id(layer): self.names[new] for layer, new in self.swapped.items()}
        weights = {id(layer._parameters[_weight(layer)]): self.names[new] for layer, new in self.swapped.items()}
        of_torch = {*vars(nn.Module()), "_flat_weights"}
        for owner, module in model.named_modules():
            for key in vars(module).keys() - of_torch:
                place, held = f"{owner}.{key}".lstrip("."), list(map(id, _contents(vars(module)[key])))
                lost = next((weights[one] for one in held if one in weights), None)
                if lost is not None:
                    raise ConfigError(
                        f"layer {lost}: its weight is in {place}, too, which would no longer be what it computes with: "
                        f"set that once the model is compressed, or keep={lost!r} dense"
                    )
                lost = next((layers[one] for one in held if one in layers), None)
                if lost is not None:
                    raise ConfigError(
                        f"layer {lost}: it is in {place}, too, which would go on with the dense one: make that an "
                        f"nn.ModuleList or nn.ModuleDict, set it once the model is compressed, or keep={lost!r} dense"
                    )

    def _given(self, model: nn.Module) -> Any:
        """What the model gives, and if need be once convolutions give contiguous outputs."""
        while True:
            called: list[Factorised] = []
            try:
                with _noting(self.names, called):
                    return outputs(model, self.examples)
            except ConfigError:
                raise
            except Exception as error:  # anyone's code
                images = [layer for layer in called if isinstance(layer, FactorisedConv) and not layer.contiguous]
                if "view" not in str(error) or not images:
                    behind = f", behind {self.names[called[-1]]}," if called else ""
                    raise ConfigError(
                        f"once its layers hold cores the model{behind} cannot take {self.examples}: {said_of(error)}; "
                        "say by keep which stay dense"
                    ) from error
                images[-1].contiguous = True


class _Parameters(dict[str, Any]):
    """Parameters of a layer, of which the weight is what ``weight`` gives whenever it is read."""

    def __init__(self, layer: nn.Module, weight: Callable[[], Any]) -> None:
        super().__init__(layer._parameters)
        self.name, self.weight = _weight(layer), weight

    def __getitem__(self, name: str) -> Any:
        return self.weight() if name == self.name else super().__getitem__(name)


class _Lost(TorchDispatchMode):
    """While it is entered, an operation on one of these ``weights``, by layer, raises ``ConfigError``."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._places: dict[int, list[tuple[int, int, str]]] = {}
        for name, weight in weights.items():
            self._places.setdefault(memory(weight), []).append((*extent(weight), name))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No, see ``Products``."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            for start, end, name in self._places.get(memory(tensor), ()) if isinstance(tensor, Tensor) else ():
                first, last = extent(tensor)
                if first < end and start < last:
                    raise ConfigError(
                        f"layer {name}: its weight is kept elsewhere, too, in a function or an object, which would go "
                        f"on with the dense one: let that ask the layer for it, or keep={name!r} dense"
                    )
        return func(*args, **(kwargs or {}))


def _refuse_read(layer: str) -> None:
    """Raise ``ConfigError``: somebody reads the weight of a layer whose place another has taken."""
    raise ConfigError(
        f"layer {layer}: the model has it elsewhere than among its modules, too, in a list, a dictionary or a "
        f"function, and computes with that: make it an nn.ModuleList or nn.ModuleDict, or keep={layer!r} dense"
    )


@contextmanager
def _noting(layers: Iterable[Factorised], called: list[Factorised]) -> Iterator[None]:
    """Those of ``layers`` that are called inside, in their order, appended to ``called``."""
    hooks = [layer.register_forward_hook(lambda layer, *_: called.append(layer), prepend=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shown(examples: Examples, batch: int) -> Iterator[Examples]:
    """What to show a model that takes ``examples``, the most telling first, which is of ``batch`` inputs."""
    if examples.shape is not None:
        (zeros,) = examples.args
        shape, generator = (batch, *zeros.shape[1:]), torch.Generator().manual_seed(0)
        yield replace(examples, args=(torch.rand(shape, generator=generator, device="cpu").to(zeros),))
    yield examples


def _weight(layer: nn.Module) -> str:
    kind = kind_by_class(layer)
    assert kind is not None
    return kind.weights[0].name


def _read(stack: ExitStack, layer: nn.Module, weight: Callable[[], Any]) -> None:
    """Let the weight of ``layer`` be what ``weight`` gives, for the time of ``stack``."""
    stack.callback(vars(layer).update, _parameters=layer._parameters)
    vars(layer)["_parameters"] = _Parameters(layer, weight)


def _keeping_nothing(stack: ExitStack, layer: Factorised) -> None:
    layer.keeps = False
    stack.callback(vars(layer).pop, "keeps", None)


def agree(plain: nn.Module, model: nn.Module, examples: Examples) -> bool:
    """Whether ``plain``, whose layers multiply the same cores in another order, gives what ``model`` gives.

    In place of an input of zeros both are shown one of numbers from 0 to 1, where ``model`` takes it. What ``plain``
    has against it is raised.
    """
    rounding = max(_TF32, 3 * rounding_of(model))
    for shown in _shown(examples, 1):
        with suppress(Exception):  # anyone's code, which may take one of zeros only
            wanted = outputs(model, shown)
            break
    found = outputs(plain, shown)
    return not differ(found, wanted, rounding) or differ(outputs(plain, shown), found, rounding)


def differ(found: Any, wanted: Any, rounding: float) -> bool:
    """Whether two outputs have other shapes, or other numbers: floating-point ones that ``rounding`` does not explain.

    It is relative, of a whole tensor. Whole numbers, as the places of largest values, are told apart where there are no
    others: what is rounded may be a tie.
    """
    pairs = [_tensors(some) for some in (found, wanted)]
    if [one.shape for one in pairs[0]] != [one.shape for one in pairs[1]]:
        return True
    rounded = any(one.is_floating_point() or one.is_complex() for one in pairs[1])
    return any(_far(a, b, rounding, exact=not rounded) for a, b in zip(*pairs, strict=True))


def rounding_of(model: nn.Module) -> float:
    """How far outputs of the same products may lie apart, relative: by the coarsest type of the parameters."""
    coarsest = max((torch.finfo(own.dtype).eps for own in model.parameters() if own.is_floating_point()), default=0.0)
    return max(_TF32 if any(own.is_cuda for own in model.parameters()) else _FLOAT32, coarsest**0.5)


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in a value, and in containers and objects inside of it, each of those once."""
    return [one for one in _contents(value, objects=True) if isinstance(one, Tensor)]


def _contents(value: Any, objects: bool = False) -> list[Any]:
    """The tensors and modules in a value, and in containers and dataclasses inside of it, each of those once.

    ``objects``: and in attributes of any object.
    """
    found, left, seen = [], [value], set[int]()
    while left:
        one = left.pop()
        if isinstance(one, Tensor | nn.Module):
            found.append(one)
        elif id(one) not in seen:
            seen.add(id(one))
            looks = is_dataclass(one) or (objects and not isinstance(one, _CLOSED))
            fields = vars(one) if looks and hasattr(one, "__dict__") else one
            left += fields.values() if isinstance(fields, Mapping) else fields if isinstance(fields, _LISTS) else ()
    return found[::-1]


def _far(found: Tensor, wanted: Tensor, rounding: float, exact: bool) -> bool:
    if found.dtype != wanted.dtype:
        return True
    if torch.equal(found, wanted) or not (exact or wanted.is_floating_point() or wanted.is_complex()):
        return False
    if exact:
        return True
    if wanted.is_complex():
        found, wanted = torch.view_as_real(found), torch.view_as_real(wanted)
    largest = max(rounding, torch.finfo(wanted.dtype).eps ** 0.5)
    finite = wanted.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return True
    found, wanted = found[finite].double(), wanted[finite].double()
    return not bool((found - wanted).norm() <= largest * wanted.norm())
