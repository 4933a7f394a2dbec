"""Walks a model and swaps its layers for ones whose weight is held as cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ..config.overrides import changed
from ..config.schema import DECAYS, MethodConfig
from ..device.threads import side_by_side
from ..layers.apart import put_back, take_apart
from ..layers.base import Factorised
from ..layers.kinds import kind_of
from ..layers.parted.attention import call_layers
from ..layers.parted.base import like
from ..tensor.contraction.cost import Rates
from ..tensor.errors import ConfigError
from ..tensor.fitting.initial import FITTED, INITS, OF_TRAINED
from ..tensor.fitting.metric import Moment, fit_in_metric
from ..tensor.rank import RankLike
from .choice import Choice, Request, choose, naming
from .metric import batches, estimate_again, moments
from .spec import FITS, Swap
from .survey.agreement import Agreement
from .survey.attributes import all_or_nothing, copied
from .survey.inputs import Examples, refuse, unwrapped
from .survey.trace import Inputs, keep_trace

M = TypeVar("M", bound=nn.Module)
Progress = Callable[[Sequence[str]], Iterable[str]]
"""Gives the names of layers back one after the other, each when its turn has come, and shows how far that is."""


def compress(
    model: M,
    method: str | MethodConfig,
    rank: RankLike,
    input_shape: Sequence[int] | None = None,
    *,
    example_inputs: Any = None,
    keep: str | Sequence[str] | None = None,
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
    ``"energy:0.9"``, for each bond the components of its unfolding that hold this share of the squared norm (what all
    bonds keep together is less), or ``"vbmf"`` (Kim et al. 2016); unless an ``init`` is said, they are fitted.
    ``cores``: by layer, those of an equal network by name, or what tensorly found for it (a ``CPTensor`` .., see
    ``to_tensorly``); then the layers that it names are swapped, no others, and the ranks are those of its shapes.

    ``data``: a few batches, inputs as ``example_inputs`` or ``(inputs, targets)``, all of them held: trained weights
    are fitted in the metric of what each layer is given, see ``fit_in_metric`` and ``moments``, and the statistics of
    batch normalisations are estimated again. ``progress``: what shows how far it is with the layers, as ``tqdm.tqdm``
    and ``rich.progress.track`` do: given their names, it gives them back.

    Raises ``ConfigError`` for unknown names, for settings that a layer cannot take, naming the layer, for a budget that
    no ranks meet, with the smallest and the largest that can be reached, where no layer is swapped, with the reasons,
    and where the model does not compute with its cores what it would with torch's layers that hold their weights. The
    model is then what it was.
    """
    refuse(model)
    method, shown = _chosen(method, settings), None
    if not callable(progress):
        raise ConfigError(f"progress={progress!r} is no function of the names of layers, as tqdm.tqdm is")
    examples = Examples.of(model, input_shape, example_inputs)
    if data is not None:
        if cores is not None or method.init not in (None, *OF_TRAINED):
            other = f"init={method.init}" if cores is None else "cores="
            raise ConfigError(f"data= says what weights are fitted by, {other} fits none: leave one of them out")
        method, shown = replace(method, init=method.init or "fit"), batches(model, data)
    with all_or_nothing(model):
        request = Request.of(method, rank, examples, keep, batch_size, rates, cores)
        new = _compressed(model, request, progress, data=shown)
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
    keep: str | Sequence[str] | None = None,
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
        model = copied(model)
        examples = Examples.of(model, input_shape, example_inputs)
        return _compressed(model, Request.of(method, rank, examples, keep, batch_size, rates), values="variance")


def _chosen(method: str | MethodConfig, settings: dict[str, Any]) -> MethodConfig:
    known = {f.name for f in fields(MethodConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(sorted(known))}")
    if not isinstance(method, str | MethodConfig):
        raise ConfigError(f"method is the name of a format or a MethodConfig, got {method!r}")
    method = MethodConfig(method) if isinstance(method, str) else method
    layers = settings.pop("layers", method.layers)
    if not isinstance(layers, Mapping):
        raise ConfigError(f"layers: settings of single layers by their names, {{name: {{rank: 4}}}}, got {layers!r}")
    method = replace(changed(method, settings, ""), layers=dict(layers))
    if method.decay not in DECAYS:
        raise ConfigError(f"unknown decay '{method.decay}', known: {', '.join(DECAYS)}")
    if settings.get("decay", DECAYS[0]) != DECAYS[0]:
        raise ConfigError("decay is of tdc train's optimizer: give the cores a group with the weight_decay you want")
    return method


def _compressed(
    model: M,
    request: Request,
    progress: Progress = iter,
    values: str | None = None,
    data: Sequence[Examples] | None = None,
) -> M:
    """``compress``; ``values``: the init that gives the cores in place of the method's; ``data``: what fits go by."""
    inside = unwrapped(model)
    if inside is not model:
        if _compressed(inside, request, progress, values, data) is not inside:
            raise ConfigError(f"{type(inside).__name__} is itself a layer that is replaced: compress it, then wrap it")
        return model
    new: nn.Module
    new, wholes = take_apart(model)
    choice = choose(new, request)
    swapped = _held(new, request, choice, progress, values, data)
    for name, reason in choice.left.items():
        vars(new.get_submodule(name))["left_dense"] = reason
    agreement = Agreement.of(new, swapped, request.examples)
    new = put_back(put_cores(new, swapped), wholes)
    keep_trace(new, choice.seen.of(new))
    call_layers(new)
    agreement.check(new)
    return cast(M, new)


def _held(
    model: nn.Module,
    request: Request,
    choice: Choice,
    progress: Progress,
    values: str | None,
    data: Sequence[Examples] | None,
) -> dict[nn.Module, Factorised]:
    """What takes the place of the layers of ``model`` that are swapped."""
    shown_to = moments(model, _shown(model, choice), data) if data is not None else {}
    initial = _initial(choice.swaps, progress, values, shown_to)
    found: dict[nn.Module, Factorised] = {}
    for swap in choice.swaps:  # planned, and rates measured, once all threads are free
        with naming(swap.name):
            new = swap.held(initial[swap.name], request.batch_size, request.rates)
            layers = {name: model.get_submodule(name) for name in choice.uses[swap.name]}
            for name, layer in layers.items():
                own = name == swap.name
                found[layer] = new if own else _used_again(swap, new, layer, choice.seen.inputs[name])
            _tie([found[layer] for layer in layers.values()])
    return found


def _shown(model: nn.Module, choice: Choice) -> dict[str, list[str]]:
    """The layers that are given anything, by the swap whose weight they have; those that use it in its way."""
    return {
        swap.name: [
            name
            for name in choice.uses[swap.name]
            if kind_of(model.get_submodule(name)) is swap.kind and any(choice.seen.inputs[name].values())
        ]
        for swap in choice.swaps
        if any(swap.inputs.values())
    }


def _initial(
    swaps: Sequence[Swap], progress: Progress, init: str | None, shown_to: Mapping[str, Moment]
) -> dict[str, list[torch.Tensor]]:
    """The cores that each layer begins with, by its name; fits side by side, the longest first, so that none ends
    alone."""
    calls = []
    for swap in swaps:
        with naming(swap.name):
            calls.append((swap, naming(swap.name)(_cores(swap, init, shown_to.get(swap.name)))))
    calls.sort(key=lambda one: -one[0].graph.dense_parameters)
    names, begin = [swap.name for swap, _ in calls], [call for _, call in calls]
    ours = all(swap.method.fit == MethodConfig.fit for swap in swaps)  # others may know of no threads
    sizes = [swap.graph.dense_parameters for swap, _ in calls]
    with closing(side_by_side(begin, sizes) if ours else (call() for call in begin)) as found:
        return {name: cores for name, _, cores in zip(names, progress(names), found, strict=True)}


def _cores(swap: Swap, init: str | None, moment: Moment | None) -> Callable[[], list[torch.Tensor]]:
    """Gives the cores of a layer when it is called, in any thread; what is random is drawn now.

    They are those it was given, or of ``init``, by default its method's; ``moment``: of the layer's inputs, in whose
    metric the init is to fit the weight, if in any.
    """
    name = init or swap.method.init or swap.format.init
    if swap.cores is not None:
        given = [swap.cores[core.name].detach().clone() for core in swap.graph.cores]  # whose tensors are not ours
        return lambda: given
    weight = swap.weight.cpu()  # as everywhere: a fit is many small solves, which a GPU takes longer for
    if name not in FITTED:
        drawn = INITS[name](swap.graph, weight)
        return lambda: drawn
    algorithm, seed = FITS[swap.method.fit](swap.format), int(torch.randint(2**31, (), device="cpu"))
    fit = partial(INITS[name], seed=seed, algorithm=algorithm)
    return partial(fit if moment is None else partial(fit_in_metric, moment=moment, fit=fit), swap.graph, weight)


def put_cores(model: M, swapped: Mapping[nn.Module, Factorised]) -> M:
    """``model`` with these layers in place of its own, with the mode and the hooks of those."""
    for layer, new in swapped.items():
        like(layer, new)
    for name, module in [*model.named_modules(remove_duplicate=False)]:  # a layer may be used under several names
        if module in swapped:
            if not name:
                return cast(M, swapped[module])
            model.set_submodule(name, swapped[module])
    return model


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
