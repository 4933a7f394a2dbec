"""One training run, from a configuration to a finished directory."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..compression.ranks.adaptive import Shrinkage
from ..compression.ranks.costs import Costs
from ..compression.survey.counts import count
from ..compression.survey.plans import plans, tunable, tune, use_plans
from ..config.schema import PRECISIONS, TrainConfig, layer_ranks, validate
from ..data.datasets import changed_files, datasets
from ..device.files import RunError
from ..device.machine import choose_device, device_name, set_up
from ..device.memory import forget_peak, is_out_of_memory, peak_memory
from ..device.precision import autocast, effective_precision
from ..device.processes import World, joined
from ..results.folders import delete
from ..results.identity import arch_name, dataset_name, identity, method_name, plain, resolved
from ..results.record import Summary
from ..results.run import Run
from ..results.version import version
from ..tensor.rank import Budget
from . import checkpoint
from .full_rank import shared
from .full_rank.start import Start
from .interrupt import StopSignals
from .learner import Learner
from .loop import Log, Loop, outcome
from .network import Image, cutting, fitting, initial, rates_of, restored, switched
from .weights import read_weights

_ONE_VALUE = "more than 1 value per channel"  # in torch's error of a batch norm
_APART = 1_000_003  # between the random numbers of one process and the next


def train(config: TrainConfig, run: Run, log: Log = print, *, dense_only: bool = False) -> Summary:
    """Train the network of ``config`` in ``run``'s directory and return its summary; ``log`` takes lines.

    ``dense_only``: of a run that begins at full rank the dense epochs alone, for it and others to go on from, where
    ``run`` is in ``shared.directory_of(config)``.

    A run that has ended is not repeated; a broken one goes on from its checkpoint. Several processes that ``torchrun``
    started share each batch, and the first one writes. Raises ConfigError for values that cannot be used (before
    anything is written), RunError for a directory that cannot be or a device that is too small, and Interrupted upon
    SIGINT or SIGTERM, with everything so far on disk.
    """
    with joined() as world:
        return _prepared(config, run, world, log, dense_only)


def _prepared(config: TrainConfig, run: Run, world: World, log: Log, dense_only: bool) -> Summary:
    device = choose_device(validate(config).device)
    precision = _precision(config.precision, run, device)
    begun = shared.begins_with(config, precision) if world.size == 1 and not dense_only else None
    config = replace(resolved(config), precision=precision)
    whole, config = config, shared.dense(config) if dense_only else config
    ended = world.told(run.ended(config))
    if dense_only and ended is not None and ended.status == "finished" and shared.trained(run.directory, log) is None:
        delete(run.directory, Path(config.results_dir))  # nothing can go on from it
        ended = None
    if ended is not None:
        _refuse_other_weights(config, run, ended)
        _refuse_other_data(run, world.told(changed_files(config.dataset, ended.images) if ended.images else []))
        log(f"{run.directory}: {outcome(ended)}; not run again")
        return ended
    effective_precision(config.precision, device)  # refuses what the device cannot do, before any data are read
    if world.first:
        run.refuse_busy()
    try:
        return _train(config, run, device, world, log, whole, begun)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        asked = (str(error).splitlines() or ["of the machine"])[0].split(". GPU")[0]
    except ValueError as error:
        if _ONE_VALUE not in str(error):
            raise
        raise RunError(
            f"batch_size={config.batch_size} leaves a batch of one image, of which a batch norm sees one pixel: choose "
            "another batch_size, dataset.limit or dataset.image_size"
        ) from None
    # Raised out here, where the error before it is gone: its traceback would keep the network of a sweep's failed run.
    smaller = f"batch_size={config.batch_size // 2}, or " if config.batch_size > 1 else ""
    raise RunError(
        f"out of memory on {device_name(device)} ({asked}), peak so far {peak_memory(device):.0f} MB; "
        f"try {smaller}a smaller rank or arch.width"
    )


def _refuse_other_weights(config: TrainConfig, run: Run, ended: Summary) -> None:
    """Raise RunError where ``init_from`` holds others by now than those that the ended run started from."""
    if ended.init_digest is None or not Path(str(config.init_from)).exists():
        return
    if read_weights(str(config.init_from)).digest != ended.init_digest:
        raise RunError(
            f"{run.directory} started from other weights than init_from={config.init_from} holds now; delete it or "
            "choose another results_dir"
        )


def _refuse_other_data(run: Run, changed: Sequence[str]) -> None:
    """Raise RunError where data have ``changed`` since the run in the directory began."""
    if changed:
        raise RunError(
            f"{run.directory} began with other data ({', '.join(changed)}); delete it or choose another results_dir"
        )


def _precision(name: str, run: Run, device: torch.device) -> str:
    """``auto`` is what the run in the directory began with, whichever device that was, else what suits the device.

    So a run never changes its arithmetic on the way, and one that has ended is found again on every machine.
    """
    if name != "auto":
        return name
    begun = run.summary()
    if begun is not None and begun.precision in PRECISIONS:
        return begun.precision
    return effective_precision(name, device)


def _train(
    config: TrainConfig, run: Run, device: torch.device, world: World, log: Log, whole: TrainConfig, begun: Path | None
) -> Summary:
    """``whole``: ``config``, or the one whose dense epochs it is; ``begun``: where such epochs would lie."""
    data = datasets(config.dataset, device, log, config.seed)
    train_data, sizes = data.train, (data.train.in_channels, data.train.image_size, data.classes)
    state = world.told(checkpoint.load(run.directory, log) if world.first else None)
    rates, source = rates_of(config, device), run.directory
    if state is None:
        model, image = initial(config, device, sizes=sizes, dense=True)
        start = Start.of(whole, model, image, rates, log)
        if begun is not None and (state := shared.state_in(begun, config, data, log)):
            source = begun
            if start is not None:
                start.after(state, begun)
    else:
        run.refuse_other(config, state.get("config"))
        before = world.told(run.summary())
        _refuse_other_data(run, data.changes(state.get("images"), before.normalisation if before is not None else {}))
        model, image = restored(config, device, run.directory, state, sizes)
        start = Start.from_plain(state["start"]) if state["start"] is not None else None
    model = model.to(device).to(memory_format=torch.channels_last)
    set_up(device)
    forget_peak(device)
    shrinkage = _shrinkage(config, model, image)
    learner = Learner(config, model, train_data.batches(config.batch_size), device, world, shrinkage, start)
    if not world.first:
        torch.manual_seed(config.seed + _APART * world.rank)  # dropout differs between parts of a batch

    def planned(model: nn.Module) -> nn.Module:
        """``model`` with the fastest plans, where that is to be measured, and the same ones in every process."""
        if tunable(model):
            images, _ = next(train_data.epoch(config.batch_size, config.seed, 0, shuffle=True, world=world))
            tune(model, images, autocast(device, config.precision))
        use_plans(model, world.told(plans(model)))
        return model

    def factorise(model: nn.Module) -> nn.Module:
        return planned(switched(config, image, rates, world, model))

    with run.locked() if world.first else nullcontext(), StopSignals() as stop:
        ended = world.told(run.ended(config))  # by another process, while this one read the data
        if ended is not None:
            return ended
        if state is not None:
            with fitting(source):
                learner.restore(state)
            log(f"{source}: going on from epoch {learner.epoch + 1}, step {learner.batch + 1}")
        else:
            planned(model)
        tested = state.get("counts") if state is not None else None
        after = factorise if whole is config else None
        summary = replace(
            _first_summary(config, device, world), normalisation=train_data.normalisation, images=data.sizes
        )
        if state is None:
            given = read_weights(config.init_from).digest if config.init_from is not None else None
            summary = replace(summary, init_digest=given)
        else:
            summary = _gone_on_with(summary, Run(source).summary(), learner.epoch + 1 + (learner.batch > 0))
        loop = Loop(config, run, learner, summary, image, after, planned, tested, stop, log)
        return loop.until_ended(data)


def _shrinkage(config: TrainConfig, model: nn.Module, image: Image) -> Shrinkage | None:
    rank = cutting(config)
    if not isinstance(rank, Budget) or not rank.adaptive:
        return None
    counts, method, own = count(model, image), config.method, tuple(layer_ranks(config.method))
    if rank.kind == "macs":
        target = int(rank.value * counts["dense_macs"])
        return Shrinkage(target, config.epochs, own, method.rank_multiple, costs=Costs(image))
    return Shrinkage(int(rank.parameters(counts["dense_parameters"])), config.epochs, own, method.rank_multiple)


def _gone_on_with(summary: Summary, before: Summary | None, epoch: int) -> Summary:
    """``summary`` of a run that was begun ``before``, and goes on: ``epoch`` is the next whole one."""
    if before is None:
        return replace(summary, device_since=epoch)
    since = before.device_since if before.device == summary.device else epoch
    exports = before.exports if before.epochs_done == before.epochs else []  # of weights that are trained no further
    return replace(summary, device_since=since, init_digest=before.init_digest, exports=exports, other=before.other)


def _first_summary(config: TrainConfig, device: torch.device, world: World) -> Summary:
    """What is known before the first step, and will not change."""
    together = f", {world.size} processes" if world.size > 1 else ""
    return Summary(
        dataset=dataset_name(config),
        arch=arch_name(config),
        method=method_name(config.method),
        rank=identity(plain(config))["rank"],
        seed=config.seed,
        epochs=config.epochs,
        device=device_name(device) + together,
        precision=config.precision,
        processes=world.size,
        versions={"torch": str(torch.__version__), "tdcompress": version(), "python": platform.python_version()},
        config=plain(config),
    )
