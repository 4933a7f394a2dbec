"""The network of a configuration: dense, as training starts from it, or with the weights that a run has come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..compression.stable_ranks import latest_epoch
from ..compression.survey.inputs import Examples, said_of
from ..compression.survey.trace import outputs
from ..compression.swap import compress, sketch
from ..config.schema import AUTO, TrainConfig
from ..data.sources import shape
from ..device.files import RunError
from ..device.memory import is_out_of_memory
from ..device.precision import compute_dtype, effective_precision
from ..device.processes import World
from ..device.rates import device_rates
from ..layers.kinds import factorised
from ..models.build import build
from ..results.identity import fitted, plain, resolved
from ..tensor.contraction.cost import Rates
from ..tensor.errors import ConfigError
from ..tensor.rank import Budget, Rank
from .watch import layers
from .weights import Weights, read_weights

Image = tuple[int, int, int]  # channels, height, width
Sizes = tuple[int, int, int]  # channels, height and width of the square images, classes


def network(
    config: TrainConfig,
    in_channels: int,
    classes: int,
    image_size: int,
    rates: Rates | None = None,
    trained: Weights | None = None,
    dense: bool = False,
    data: Iterable[Any] | None = None,
) -> nn.Module:
    """The network of ``config``, its layers swapped, for square images of ``image_size`` pixels.

    With the weights that were ``trained`` already, or else those of ``init_from``: dense ones are decomposed as
    ``config.method`` and ``config.rank`` say; cores are taken as they are. Where it begins at full rank, see
    ``TrainConfig.full_rank_epochs``: as it will be after the switch, its cores drawn; ``dense``, or with weights that
    were trained dense: as it is before. ``data``: what dense weights are fitted by, see ``compress``. Raises
    ``ConfigError`` where they do not fit.
    """
    model = build(config.arch, in_channels, classes, image_size)
    method, cores, image = config.method, None, (in_channels, image_size, image_size)
    if config.arch.target:
        _check_scores(model, image, classes)
    starts_dense = resolved(config).full_rank_epochs != 0
    if starts_dense and method.init is not None:
        raise _from_scratch(method.init, "dense weights", ", or full_rank_epochs=0")
    weights = trained or (read_weights(config.init_from, model) if config.init_from is not None else None)
    if weights is not None:
        if starts_dense and trained is None:
            weights.refuse_factorised()
        if weights.cores:
            weights.refuse_other(config)
            cores = weights.cores
        else:
            if config.method.init not in (None, "fit"):
                raise _from_scratch(config.method.init, f"the weights of {config.init_from}")
            weights.load_into(model)
        if cores is None or fitted(weights.config or plain(config)):
            method = replace(method, init="fit")
    if starts_dense and cores is None:
        return model if dense or trained is not None else sketched(config, model, image, rates=rates)
    keep, batch_size = config.arch.keep, config.batch_size
    options: dict[str, Any] = {"keep": keep, "batch_size": batch_size, "rates": rates, "cores": cores, "data": data}
    compress(model, method, config.rank, image, progress=layers, **options)
    if weights is not None and cores is not None:
        weights.load_into(model)
    return model


def _check_scores(model: nn.Module, image: Image, classes: int) -> None:
    """Raise ``ConfigError`` for a user's own network that gives no scores ``(b, classes)``, or more of them."""
    try:
        scores = outputs(model, Examples.of(model, image))
    except ConfigError:
        raise
    except Exception as error:  # anyone's code
        raise ConfigError(f"arch.target cannot take an image {image}: {said_of(error)}") from error
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != 1 or scores.shape[1] < classes:
        found = f"scores {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ConfigError(f"arch.target gives {found} for one image, not (1, {classes}), one for each of the classes")


def _from_scratch(init: str | None, weights: str, instead: str = "") -> ConfigError:
    """What is wrong with ``method.init`` where cores are fitted to ``weights``; ``instead``: what else helps."""
    return ConfigError(
        f"method.init={init} is for cores that begin from scratch, and these are fitted to {weights}: leave it "
        f"out{instead}"
    )


def cutting(config: TrainConfig) -> Rank:
    """``config.rank`` as a run goes about it: a budget after full rank is reached by cuts while training.

    Unless it is to be reached at once, or fewer than two epochs remain for it. Raises ``ConfigError`` for a weight
    decay that goes by sizes, which cuts change.
    """
    rank, start = config.rank, resolved(config).full_rank_epochs
    dense = latest_epoch(config.epochs) if start == AUTO else start
    gradual = config.cut == "gradual" and config.epochs - dense > 1
    assert isinstance(rank, Rank)
    if not isinstance(rank, Budget) or start == 0 or not gradual:
        return rank
    if rank.kind != "params" and (rank.value <= 1 if rank.kind == "ratio" else rank.value >= 1):
        return rank
    if config.method.decay == "scaled":
        raise ConfigError(
            f"rank={rank} is reached by cuts after full rank, which change the sizes that method.decay=scaled goes by: "
            "use cut=at_once, or another decay"
        )
    return replace(rank, adaptive=True)


def sketched(
    config: TrainConfig, model: nn.Module, image: Image, rank: Rank | None = None, rates: Rates | None = None
) -> nn.Module:
    """A copy of the dense ``model`` as the switch would leave it, but for the cores' values; ``rank``: another one."""
    keep, batch_size = config.arch.keep, config.batch_size
    asked = config.rank if rank is None else rank
    return sketch(model, config.method, asked, image, keep=keep, batch_size=batch_size, rates=rates)


def switched(config: TrainConfig, image: Image, rates: Rates, world: World, model: nn.Module) -> nn.Module:
    """``model``, trained dense, with cores in place: fitted by the first process, which tells the others."""
    method, keep, batch_size = replace(config.method, init="rough"), config.arch.keep, config.batch_size
    planned: dict[str, Any] = {"keep": keep, "batch_size": batch_size, "rates": rates, "progress": layers}
    fitting: Callable[..., nn.Module] = partial(compress, model, method, input_shape=image, **planned)
    if world.first:
        model = fitting(cutting(config))
    held = {
        name: dict(zip([core.name for core in layer.graph.cores], map(_copy, layer.tensors()), strict=True))
        for name, layer in factorised(model).items()
    }
    held = world.told(held)
    return model if world.first else fitting(config.rank, cores=held)


def _copy(core: Tensor) -> Tensor:
    return core.detach().cpu()


def dense(config: TrainConfig) -> tuple[nn.Module, Image]:
    """The network before it is compressed, on the CPU, and the shape of an image."""
    channels, size, classes = shape(config.dataset)
    return build(config.arch, channels, classes, size), (channels, size, size)


def initial(
    config: TrainConfig,
    device: torch.device,
    trained: Weights | None = None,
    sizes: Sizes | None = None,
    dense: bool = False,
    data: Iterable[Any] | None = None,
) -> tuple[nn.Module, Image]:
    """The ``network`` as training starts from it, on the CPU, planned for ``device``, and the shape of an image.

    ``trained``: the weights of a run, and then the network as these left it. ``sizes``: of the data, where they are
    known already. ``dense``: before the switch, where it begins at full rank. ``data``: see ``network``. The random
    numbers are those of ``config.seed``.
    """
    channels, size, classes = sizes or shape(config.dataset)
    rates = rates_of(config, device)
    torch.manual_seed(config.seed)  # behind the rates: measuring them draws random numbers
    return network(config, channels, classes, size, rates, trained, dense, data), (channels, size, size)


def rates_of(config: TrainConfig, device: torch.device) -> Rates:
    """What the layers are planned for on ``device``."""
    return device_rates(device, compute_dtype(effective_precision(config.precision, device)))


def restored(
    config: TrainConfig, device: torch.device, directory: Path, state: Mapping[str, Any], sizes: Sizes | None = None
) -> tuple[nn.Module, Image]:
    """``initial`` with the weights in ``state``, the checkpoint of the run in ``directory``.

    Raises ``RunError`` where they do not fit. What a network without them raises as well is raised as it is.
    """
    try:
        with fitting(directory):
            return initial(config, device, Weights(str(directory), state["model"], None), sizes)
    except RunError as error:
        misfit = error.with_traceback(None)
    with suppress(RunError):  # weights that the run once started from may be gone by now
        initial(config, device, sizes=sizes, dense=True)
    raise misfit


@contextmanager
def fitting(directory: Path) -> Iterator[None]:
    """What goes wrong inside is told as the fault of the checkpoint in ``directory``, but for a lack of memory."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(
            f"{directory}: the checkpoint does not fit this network ({reason}); "
            "delete it, or use the version of tdcompress that wrote it"
        ) from None
