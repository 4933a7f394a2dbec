"""``tdc bench step``: the training step of a whole network, every format against dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config.words import choice, read
from ..device.clock import compare, finished
from ..results.terminal import show
from ..tensor.errors import ConfigError
from ..tensor.formats import find_format
from ..tensor.layout import LAYOUTS
from ..tensor.rank import Budget, Rank, parse
from ..train.watch import bar
from .machine import columns, methods, start
from .memory import step_memory
from .options import Options
from .table import write
from .training import Network, TrainingStep

_COLUMNS = (
    *("method", "rank", "parameters", "macs", "ms", "dense_ms", "speedup", "hand_ms", "hand_ratio"),
    *("base", "base_ms", "base_ratio", "memory_mb", "dense_memory_mb", "memory_ratio"),
)


@dataclass(frozen=True)
class StepOptions(Options):
    """``parameters``: ``METHOD:RANK``, the network whose parameter count every method gets (instead of ``rank``).

    ``cuda_graphs`` and ``compile`` are of every network that is timed, dense too.
    """

    arch: str = "vgg16"
    width: float = 1.0
    dataset: str = "cifar10"
    rank: tuple[str, ...] = ("reference",)
    batch_size: int = 100
    parameters: str = ""
    plan: str = "model"
    layout: str | None = choice(None, LAYOUTS)
    checkpoint: bool = False
    cuda_graphs: bool = True
    compile: bool = False


def run(words: Sequence[str]) -> None:
    """Time the step of every method asked for; a row each."""
    options = read(words, StepOptions)
    chosen = methods(options)
    options, device = start(options)
    dense = Network(
        *(options.arch, options.width, options.dataset, options.batch_size, options.precision),
        *("dense", 1, options.plan),
        layout=options.layout,
        cuda_graphs=options.cuda_graphs,
        compile=options.compile,
    )
    bench = _Bench(dense, options, device)
    cases = [(method, rank) for method in chosen for rank in bench.ranks]
    rows: list[dict[str, Any]] = []
    for method, rank in bar(cases, "step", 0, len(cases)):
        rows.append({**bench.measure(method, rank), **columns(options, device)})
        path = write(rows, options.results_dir, "step")
    title = (
        f"{options.arch}, step of a batch of {options.batch_size}; speedup: dense / ours, other ratios: ours / theirs"
    )
    show(rows, [column for column in _COLUMNS if any(column in row for row in rows)], title)
    print(path)


class _Bench:
    """The dense step, the step of ``parameters=METHOD:RANK`` if asked for, and how others compare with them."""

    def __init__(self, dense: Network, options: StepOptions, device: torch.device) -> None:
        self.network, self.options, self.device = dense, options, device
        self.ranks: Sequence[Rank] = [parse(rank) for rank in options.rank]
        self.base: TrainingStep | None = None
        if options.parameters:
            method, colon, rank = options.parameters.partition(":")
            if not colon:
                raise ConfigError(f"parameters={options.parameters} is not METHOD:RANK, for example tucker:reference")
            find_format(method)
            self.base = TrainingStep(replace(dense, method=method, rank=parse(rank).plain), device)
            self.ranks = [Budget("params", self.base.parameters)]
        self.dense = TrainingStep(dense, device)
        self.dense_memory = step_memory(self.dense)

    def measure(self, method: str, rank: Rank) -> dict[str, Any]:
        network = replace(self.network, method=method, rank=rank.plain, checkpoint=self.options.checkpoint)
        ours = TrainingStep(network, self.device)
        rivals = {"dense": self.dense}
        if ours.has_hand_chain():
            rivals["hand"] = TrainingStep(replace(network, by_hand=True), self.device)
        if self.base is not None:
            rivals["base"] = self.base
        calls = {name: finished(step, self.device) for name, step in rivals.items()}
        times = compare(finished(ours, self.device), calls, self.options.repeats)
        hand, base = times.get("hand"), times.get("base")
        memory = step_memory(ours)
        row = {
            "arch": self.options.arch,
            "batch_size": self.options.batch_size,
            "layout": self.options.layout,
            "cuda_graphs": self.options.cuda_graphs,
            "compile": self.options.compile,
            "method": method,
            "rank": rank.plain,
            "parameters": ours.parameters,
            "dense_parameters": self.dense.parameters,
            "macs": ours.macs,
            "dense_macs": self.dense.macs,
            "ms": times["dense"].ours_ms,
            "dense_ms": times["dense"].rival_ms,
            "speedup": times["dense"].speedup,
            "hand_ms": hand and hand.rival_ms,
            "hand_ratio": hand and hand.ratio,
            "memory_mb": memory,
            "dense_memory_mb": self.dense_memory,
            "memory_ratio": memory / self.dense_memory,
        }
        if base is not None:
            row |= {"base": self.options.parameters, "base_ms": base.rival_ms, "base_ratio": base.ratio}
        return row
