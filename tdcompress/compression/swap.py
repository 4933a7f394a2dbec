"""Walks a model and swaps its layers for ones whose weight is held as cores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from fnmatch import fnmatch
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ..config.schema import DECAYS, MethodConfig, layer_ranks
from ..layers.attention import call_layers, separate
from ..layers.base import HOOKS, Factorised
from ..layers.kinds import kind_of, put_back, take_apart, why_not
from ..tensor.contraction.cost import Rates
from ..tensor.errors import ConfigError
from ..tensor.fitting.initial import OF_TRAINED
from ..tensor.formats import find_format
from ..tensor.rank import Budget, RankLike, parse
from ..tensor.weight import checked
from .left import aliases, left_dense, of_parts, ties
from .metric import batches, estimate_again, moments
from .ranks.sizing import heavy, meet
from .spec import Swap, swap_for
from .survey.attributes import all_or_nothing
from .survey.counts import why_dense
from .survey.inputs import Examples, refuse
from .survey.trace import Inputs, Trace, keep_trace, trace

M = TypeVar("M", bound=nn.Module)
Progress = Callable[[Sequence[str]], Iterable[str]]
"""Gives the names of layers back one after the other, each when its turn has come, and shows how far that is."""

_NO_SMALLER = "its cores would hold no fewer entries"
PLANNING_BATCH = 100  # images the plan is made for, where none are named


def compress(
    model: M,
    method: str | MethodConfig,
    rank: RankLike,
    input_shape: Sequence[int] | None = None,
    *,
    example_inputs: Any = None,
    keep: Sequence[str] | None = None,
    batch_size: int | None = None,
    rates: Rates | None = None,
    cores: Mapping[str, Any] | None = None,
    data: Iterable[Any] | None = None,
    progress: Progress = iter,
    **settings: Any,
) -> M:
    """Swap, in place, every layer of ``model`` whose class is in ``KINDS`` for one whose weight is held as cores.

    ``method``: a format's name, or a whole ``MethodConfig``; ``settings`` are its further fields (``layout="matrix"``,
    ``kernel="separate"``, ``plan="dense"`` ..). ``input_shape``: one input without the batch dimension; or
    ``example_inputs``: a tensor, a tuple of arguments, or a dictionary of keywords. The layers that a forward pass of
    it reaches are swapped. ``keep``: name patterns of layers that stay dense; by default the first convolution and the
    last linear layer, where they take under a tenth of a budget of parameters. A layer whose cores would hold no fewer
    entries than its weight stays dense too, unless ``allow_larger``. The cores start with the variance that the layer's
    present weight has, or, with ``init="fit"`` and for trained weights, as near to it as can be. Contractions are
    planned for ``batch_size`` such inputs at once (by default 100, or one where the examples are a batch already) and a
    device of these ``rates``, by default the model's own. Cores of a frozen weight are frozen, hooks are kept. Returns
    the model, or what takes its place if it is itself a layer; ``report`` says what became of each layer.

    ``rank``: the bond dimension, a list of one for each bond of a layer, or ``"reference"``. Or what the whole network
    may cost, met to within 2 %: ``"10x"`` (dense parameters / parameters), ``"params:120000"``, ``"macs:0.2"`` (MACs /
    dense MACs, along the plans for the default rates); a layer with a rank of its own in ``layers`` keeps it, the
    others absorb. Unless a layout is given, a budget of parameters holds weights in pairs of modes (``init="fit"`` does
    not); no budget keeps square cores (``tensor.caps.absorbed``). ``"adaptive:10x"``: the larger network that such a
    training starts with, see ``adaptive``. Or what the present weights need, which says something of trained ones only:
    ``"energy:0.9"``, the smallest ranks that keep this share of the squared norm at every bond, or ``"vbmf"`` (Kim et
    al. 2016). ``cores``: by layer, those of an equal network by name, or what tensorly found for it (a ``CPTensor`` ..,
    see ``to_tensorly``); then the layers that it names are swapped, no others, and the ranks are those of its shapes.

    ``data``: a few batches, inputs as ``example_inputs`` or ``(inputs, targets)``, all of them held: trained weights
    are fitted in the metric of what each layer is given, see ``fit_in_metric`` and ``moments``, and the statistics of
    batch normalisations are estimated again. ``progress``: what shows how far it is with the layers, as ``tqdm.tqdm``
    and ``rich.progress.track`` do: given their names, it gives them back.

    Raises ``ConfigError`` for unknown names, for settings that a layer cannot take, naming the layer, for a budget that
    no ranks meet, with the smallest and the largest that can be reached, and where no layer is swapped, with the
    reasons. The model is then what it was.
    """
    refuse(model)
    method, shown = _chosen(method, settings), None
    examples = Examples.of(model, input_shape, example_inputs)
    if data is not None:
        if cores is not None or method.init not in (None, *OF_TRAINED):
            other = f"init={method.init}" if cores is None else "cores="
            raise ConfigError(f"data= says what weights are fitted by, {other} fits none: leave one of them out")
        method, shown = replace(method, init=method.init or "fit"), batches(model, data)
    with all_or_nothing(model):
        new = _compressed(model, method, rank, examples, keep, batch_size, rates, cores, progress, data=shown)
        if shown is not None:
            estimate_again(new, shown)
    return new


def sketch(
    model: M,
    method: str | MethodConfig,
    rank: RankLike,
    input_shape: Sequence[int] | None = None,
    *,
    example_inputs: Any = None,
    keep: Sequence[str] | None = None,
    batch_size: int | None = None,
    rates: Rates | None = None,
    **settings: Any,
) -> M:
    """A copy of ``model`` as ``compress`` would leave it with ``init="fit"``, but with cores that are only drawn.

    It says what there would be, and what it would cost, without the time of the fits; the random state stays as it is.
    """
    refuse(model)
    method = replace(_chosen(method, settings), init="fit")
    with torch.random.fork_rng(devices=[]):
        model = copy.deepcopy(model)
        examples = Examples.of(model, input_shape, example_inputs)
        return _compressed(model, method, rank, examples, keep, batch_size, rates, None, iter, "variance")


def _chosen(method: str | MethodConfig, settings: dict[str, Any]) -> MethodConfig:
    known = {f.name for f in fields(MethodConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(sorted(known))}")
    method = MethodConfig(method, **settings) if isinstance(method, str) else replace(method, **settings)
    if method.decay not in DECAYS:
        raise ConfigError(f"unknown decay '{method.decay}', known: {', '.join(DECAYS)}")
    return method


def _compressed(
    model: M,
    method: MethodConfig,
    rank: RankLike,
    examples: Examples,
    keep: Sequence[str] | None,
    batch_size: int | None,
    rates: Rates | None,
    cores: Mapping[str, Any] | None,
    progress: Progress,
    values: str | None = None,
    data: Sequence[Examples] | None = None,
) -> M:
    """``compress``; ``values``: the init that gives the cores in place of the method's; ``data``: what fits go by."""
    new: nn.Module
    new, wholes = take_apart(model)
    new, seen = _swapped(new, method, rank, examples, keep, batch_size, rates, cores, progress, values, data)
    new = put_back(new, wholes)
    keep_trace(new, seen.of(new))
    call_layers(new)
    return cast(M, new)


def _swapped(
    model: M,
    method: MethodConfig,
    rank: RankLike,
    examples: Examples,
    keep: Sequence[str] | None,
    batch_size: int | None,
    rates: Rates | None,
    cores: Mapping[str, Any] | None,
    progress: Progress,
    values: str | None,
    data: Sequence[Examples] | None,
) -> tuple[M, Trace]:
    """The same for a model whose layers have one weight each, and what it was seen to do before."""
    asked = parse(rank)
    if batch_size is None:
        batch_size = PLANNING_BATCH if examples.batch == 1 else 1
    formats = [find_format(chosen) for chosen in (method.format, method.conv, method.linear) if chosen is not None]
    for name, layer in model.named_modules():
        kind = kind_of(layer)
        if kind is not None:
            with _naming(name):
                checked(kind.weight(layer))
    seen = trace(model, examples)
    if separate(model, {name: sum(inputs.values()) for name, inputs in seen.inputs.items()}):
        seen = trace(model, examples)
    names = list(seen.inputs)
    known = aliases(model, names)
    keep = None if keep is None else [new for pattern in keep for new in of_parts(model, known, pattern)]
    layers = {new: value for pattern, value in method.layers.items() for new in of_parts(model, known, pattern)}
    method = replace(method, layers=layers)
    own = layer_ranks(method)
    for key, patterns in (("arch.keep", keep or ()), ("method.layers", method.layers), ("cores", cores or ())):
        lost = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in known)]
        if lost:
            raise ConfigError(f"{key}: no layer is named {', '.join(lost)}; there are {', '.join(names)}")
    by_macs = isinstance(asked, Budget) and asked.kind == "macs"
    large = heavy(asked, model, seen) if isinstance(asked, Budget) else ()
    left = left_dense(names, model, keep, by_macs, seen.reads, large)
    for name in cores or ():
        reason = why_not(model.get_submodule(name))
        if reason is not None:
            raise ConfigError(f"cores: {name} stays dense ({reason})")
        left.pop(name, None)
    tied = ties([name for name in names if name not in left and (cores is None or name in cores)], model)
    for pattern in method.layers if cores is None else ():
        named = [name for name in names if fnmatch(name, pattern)]
        if left.keys() >= set(named):
            raise ConfigError(f"method.layers: {', '.join(named)} stays dense ({left[named[0]]}); see arch.keep")
        lost = [name for name in named if not fnmatch(tied.get(name, name), pattern)]
        if lost:
            raise ConfigError(f"method.layers: the weight of {lost[0]} is that of {tied[lost[0]]}, name that layer")
    swaps = []
    for name in names:
        layer = model.get_submodule(name)
        kind = kind_of(layer)
        if name not in left and kind is not None and tied.get(name, name) == name:
            with _naming(name):
                given = cores.get(name) if cores is not None else None
                swap = swap_for(name, layer, kind, seen.inputs[name], method, asked, own, given)
            if swap is not None and (cores is None or name in cores):
                swaps.append(swap)
            elif swap is not None:
                left[name] = _NO_SMALLER
    if isinstance(asked, Budget) and cores is None and (swaps or any(format.factorised for format in formats)):
        if asked.kind == "macs":
            rates = Rates()  # ranks, and the plans that they were counted along, are the same on every machine
        meet(asked, model, swaps, seen, left, batch_size, method.rank_multiple)
    shrunk = [swap.name for swap in swaps if not swap.stays_dense(swap.graph) and any(swap.inputs.values())]
    shown_to = moments(model, shrunk, data) if data is not None else {}
    swapped: dict[nn.Module, Factorised] = {}
    for _, swap in zip(progress([swap.name for swap in swaps]), swaps, strict=True):
        with _naming(swap.name):
            uses = [name for name, first in tied.items() if first == swap.name]
            if swap.stays_dense(swap.graph):
                left |= dict.fromkeys(uses, _NO_SMALLER)
                continue
            new = swap.fitted(batch_size, rates, values, shown_to.get(swap.name))
            for name in uses:
                layer = model.get_submodule(name)
                swapped[layer] = new if name == swap.name else _used_again(swap, new, layer, seen.inputs[name])
            _tie([swapped[model.get_submodule(name)] for name in uses])
    if not swapped and cores is None and any(format.factorised for format in formats):
        weighty = (*seen.reached, *seen.missed)
        others = {name: str(why_dense(name, model.get_submodule(name), seen)) for name in weighty}
        reasons = _by_reason(others | left)
        said = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise ConfigError(f"no layer would be held as cores ({said or 'none with a weight of two axes is reached'})")
    for name, reason in left.items():
        vars(model.get_submodule(name))["left_dense"] = reason
    return put_cores(model, swapped), seen


def put_cores(model: M, swapped: Mapping[nn.Module, Factorised]) -> M:
    """``model`` with these layers in place of its own, with the mode and the hooks of those."""
    for layer, new in swapped.items():
        # The same dictionaries, so that handles of hooks still remove them.
        vars(new).update({name: vars(layer)[name] for name in HOOKS})
        new.train(layer.training)
    for name, module in [*model.named_modules(remove_duplicate=False)]:  # a layer may be used under several names
        if module in swapped:
            if not name:
                return cast(M, swapped[module])
            model.set_submodule(name, swapped[module])
    return model


def _by_reason(left: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in left.items():
        found.setdefault(reason, []).append(name or "the model itself")
    return found


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"layer {layer}: {error}") from error


def _used_again(swap: Swap, first: Factorised, layer: nn.Module, inputs: Inputs) -> Factorised:
    """What takes the place of a layer whose weight is that of ``swap``, held by ``first``: it holds the same cores."""
    kind = kind_of(layer)
    assert kind is not None
    use = replace(swap, layer=layer, kind=kind, inputs=inputs)
    new = use.module(first.tensors(), first.planner.batch_size, first.planner.rates)
    new.checkpoint, new.layout = first.checkpoint, first.layout
    return new


def _tie(layers: Sequence[Factorised]) -> None:
    for layer in layers if len(layers) > 1 else ():
        layer.tie([other for other in layers if other is not layer])
