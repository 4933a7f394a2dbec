"""``tdc bench step``: the training step of a whole network, every format against dense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config.words import choice, read
from ..device.clock import compare, finished
from ..results.terminal import show
from ..tensor.errors import ConfigError
from ..tensor.formats import BASELINE, find_format
from ..tensor.layout import LAYOUTS
from ..tensor.rank import Budget, parse
from ..train.watch import bar
from .machine import columns, methods, start
from .memory import step_memory
from .options import NetworkOptions
from .table import spread, write
from .training import Network, TrainingStep

_COLUMNS = (
    *("method", "rank", "parameters", "macs", "ms", "dense_ms", "speedup", "hand_ms", "hand_ratio"),
    *("base", "base_ms", "base_ratio", "memory_mb", "dense_memory_mb", "memory_ratio"),
)


@dataclass(frozen=True)
class StepOptions(NetworkOptions):
    """``parameters``: ``METHOD:RANK``, the network whose parameter count every method gets (instead of ``rank``).

    ``cuda_graphs`` and ``compile`` are of every network that is timed, dense too.
    """

    batch_size: int = 100
    parameters: str = ""
    plan: str = "model"
    layout: str | None = choice(None, LAYOUTS)
    checkpoint: bool = False
    cuda_graphs: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` where two sizes are asked for, too."""
        super().__post_init__()
        if self.parameters and self.rank != NetworkOptions.rank:
            raise ConfigError(f"parameters={self.parameters} gives every method its size: leave rank= out")


def run(words: Sequence[str]) -> None:
    """Time the step of every method asked for; a row each."""
    options = read(words, StepOptions)
    chosen = methods(options, options.layout)
    options, device = start(options)
    dense = Network(
        *(options.arch, options.width, options.dataset, options.batch_size, options.precision),
        *(BASELINE, 1, options.plan),
        layout=options.layout,
        cuda_graphs=options.cuda_graphs,
        compile=options.compile,
    )
    count = len(options.run) or len(chosen) * (1 if options.parameters else len(options.rank))
    rows: list[dict[str, Any]] = []
    for bench, network in bar(_cases(dense, chosen, options, device), "step", 0, count):
        rows.append({**bench.measure(network), **columns(options, device)})
        path = write(rows, options.results_dir, "step")
    arch = ", ".join(sorted({row["arch"] for row in rows}))
    title = f"{arch}, step of a batch of {options.batch_size}; speedup: dense / ours, other ratios: ours / theirs"
    show(rows, [column for column in _COLUMNS if any(column in row for row in rows)], title)
    print(path)


def _cases(
    dense: Network, chosen: Sequence[str], options: StepOptions, device: torch.device
) -> Iterator[tuple[_Bench, Network]]:
    """Every network that is asked for, and what it is compared with."""
    for run in options.run:
        network = dense.of_run(run)
        yield _Bench(network.dense, options, device), network
    if not options.run:
        bench = _Bench(dense, options, device)
        made = replace(dense, checkpoint=options.checkpoint)
        yield from ((bench, replace(made, method=method, rank=rank)) for method in chosen for rank in bench.ranks)


class _Bench:
    """The dense step, the step of ``parameters=METHOD:RANK`` if asked for, and how others compare with them."""

    def __init__(self, dense: Network, options: StepOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.ranks: Sequence[int | str] = [parse(rank).plain for rank in options.rank]
        self.base: TrainingStep | None = None
        if options.parameters:
            method, colon, rank = options.parameters.partition(":")
            if not colon:
                raise ConfigError(f"parameters={options.parameters} is not METHOD:RANK, for example tucker:reference")
            find_format(method)
            self.base = TrainingStep(replace(dense, method=method, rank=parse(rank).plain), device)
            self.ranks = [Budget("params", self.base.parameters).plain]
        self.dense = TrainingStep(dense, device)
        self.dense_memory = step_memory(self.dense)

    def measure(self, network: Network) -> dict[str, Any]:
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
            "arch": network.arch,
            "width": network.width,
            "dataset": network.dataset,
            "batch_size": network.batch_size,
            "layout": network.layout,
            "plan": network.plan,
            "checkpoint": network.checkpoint,
            "cuda_graphs": network.cuda_graphs,
            "compile": network.compile,
            "method": network.method,
            "rank": network.rank,
            "run": network.run,
            "parameters": ours.parameters,
            "dense_parameters": self.dense.parameters,
            "macs": ours.macs,
            "dense_macs": self.dense.macs,
            "ms": times["dense"].ours_ms,
            "dense_ms": times["dense"].rival_ms,
            **spread("speedup", times["dense"].speedups),
            "hand_ms": hand and hand.rival_ms,
            **spread("hand_ratio", hand.ratios if hand else ()),
            "memory_mb": memory,
            "dense_memory_mb": self.dense_memory,
            "memory_ratio": memory / self.dense_memory,
        }
        if base is not None:
            row |= {"base": self.options.parameters, "base_ms": base.rival_ms, **spread("base_ratio", base.ratios)}
        return row
