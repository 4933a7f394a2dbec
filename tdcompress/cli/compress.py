"""``tdc compress``: decompose the weights of a trained dense network.

tdc compress checkpoint=RUN rank=10x                  # a run's network, in the default format
tdc compress checkpoint=RUN method=tucker rank=vbmf   # at ranks that follow from its weights
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..compression.comparison import Side, accuracy, at_hand, compared
from ..compression.survey.report import report
from ..config.schema import TrainConfig
from ..config.words import quoted, read, split
from ..data.datasets import datasets
from ..device.machine import choose_device
from ..tensor.errors import ConfigError
from ..train.launch.job import Job
from ..train.network import dense, initial
from ..train.weights import layer_errors, read_weights, write_compressed
from .shared.jobs import asked, job_of
from .shared.tables import print_comparison, print_report

_ENDINGS = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class CompressOptions:
    """``checkpoint``: the run's directory or file of weights, several in a sweep; ``out``: the file to write, ``.pt``,
    ``.pth`` or ``.safetensors``; ``test``: let both networks answer the test images, if these are at hand; ``data``: so
    many training batches whose inputs the weights are fitted by, and batch normalisations estimated by.
    """

    checkpoint: tuple[str, ...] = ()
    out: str | None = None
    test: bool = True
    data: int | None = None


def run(words: Sequence[str]) -> None:
    """Decompose every network that ``words`` ask for: print its layers with their errors, write it, compare the two.

    Words beside ``CompressOptions`` are those of ``tdc train``. Raises ``ConfigError`` for what cannot be used.
    """
    try:
        _run(words)
    except ConfigError as error:  # to all below, the network is that of init_from
        if not str(error).startswith("init_from="):
            raise
        raise type(error)("checkpoint=" + str(error).removeprefix("init_from=")) from error


def _run(words: Sequence[str]) -> None:
    own, others = split(words, CompressOptions)
    options = read(own, CompressOptions)
    if not options.checkpoint:
        raise ConfigError("say which network is to be decomposed: checkpoint=DIRECTORY of a run, or FILE of weights")
    if any(word.startswith("init_from=") for word in others):
        raise ConfigError("checkpoint= says which network is to be decomposed: leave init_from= out")
    if any(word.startswith("full_rank_epochs=") for word in others):
        raise ConfigError("full_rank_epochs= is of tdc train: the network that is decomposed has been trained")
    if options.out is not None:
        _refuse_place(Path(options.out), options.checkpoint)
    jobs = asked([*others, "init_from=" + ",".join(map(quoted, options.checkpoint))], job_of)
    if options.out is not None and len(jobs) > 1:
        raise ConfigError(
            f"out={options.out} is one file, and these are {len(jobs)} networks: without it each has its own"
        )
    for job in jobs:
        _decompose(job.get(), options)


def _decompose(job: Job, options: CompressOptions) -> None:
    config = replace(job.config, full_rank_epochs=0)
    device = choose_device(config.device)
    twin, _ = dense(config)
    weights = read_weights(str(config.init_from), twin)
    weights.refuse_factorised()
    shown = _shown(config, device, options.data)
    model, image = initial(config, device, data=shown)
    print_report(replace(report(model), errors=layer_errors(model, weights)), config.rank)
    suffix = ".pt" if shown is None else f"-data{options.data}.pt"
    path = Path(
        options.out or Path(config.results_dir, "compressed", *job.directory.parts[-4:-1], job.directory.name + suffix)
    )
    write_compressed(path, model, config)
    weights.load_into(twin)
    twin, model = (network.to(device).to(memory_format=torch.channels_last).eval() for network in (twin, model))
    before, after = Side.of("dense", twin, image), Side.of(path.name, model, image, path.stat().st_size)
    test = at_hand(config, device, print) if options.test else None
    comparison = compared(before, after, image, device, test)
    print_comparison(comparison, device)
    if shown is not None and test is not None and comparison.accuracies is not None:
        plain = initial(config, device)[0].to(device).to(memory_format=torch.channels_last).eval()
        print(
            f"test accuracy before fine-tuning: {comparison.accuracies[1]:.2%} fitted by {len(shown)} training "
            f"batches, {accuracy(plain, test):.2%} without"
        )
    print(path)


def _refuse_place(path: Path, checkpoints: Sequence[str]) -> None:
    """Raise ``ConfigError`` for a file to write that no reader would know, or that is another's, such as a run's."""
    if path.suffix not in _ENDINGS:
        raise ConfigError(f"out={path} must end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}")
    if any(path.resolve() == Path(checkpoint).resolve() for checkpoint in checkpoints):
        raise ConfigError(f"out={path} is the network that is to be decomposed: give another file")
    if Path(path.parent, "summary.json").is_file():
        raise ConfigError(f"out={path} lies in the folder of a run, whose files are its own: give another place")


def _shown(config: TrainConfig, device: torch.device, count: int | None) -> list[Any] | None:
    """The first ``count`` batches of the training images, shuffled and augmented as the run's."""
    if count is None:
        return None
    train = datasets(config.dataset, device, print, config.seed).train
    return [*islice(train.epoch(config.batch_size, seed=config.seed, epoch=0, shuffle=True), count)]
