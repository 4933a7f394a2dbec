"""``tdc bench infer``: the forward pass of a whole network, every format and its folded network against dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..compression.export.fold import fold
from ..config.words import choice, read
from ..device.clock import compare, finished
from ..device.precision import compute_dtype
from ..results.terminal import show
from ..tensor.formats import BASELINE
from ..tensor.layout import LAYOUTS
from ..tensor.rank import parse
from ..train.watch import bar
from .machine import columns, methods, rates, start
from .options import NetworkOptions
from .table import spread, write
from .training import Network

_COLUMNS = (
    *("arch", "method", "rank", "parameters", "batch_size", "ms", "dense_ms", "speedup"),
    *("folded_parameters", "folded_ms", "folded_speedup"),
)


@dataclass(frozen=True)
class InferOptions(NetworkOptions):
    """``batch_size``: images at once, several; each network is planned, and folded, for the one that is timed.
    ``fold_plan``: of folding.
    """

    batch_size: tuple[int, ...] = (1, 128)
    fold_plan: str = "model"
    layout: str | None = choice(None, LAYOUTS)


class Inference:
    """One forward pass in ``torch.inference_mode``."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.model, self.images = model.eval(), images

    def __call__(self) -> None:
        with torch.inference_mode():
            self.model(self.images)


def run(words: Sequence[str]) -> None:
    """Time every method, rank and batch size asked for; a row each."""
    options = read(words, InferOptions)
    chosen, ranks = methods(options, options.layout), [parse(rank).plain for rank in options.rank]
    options, device = start(options)
    networks = []
    for batch in options.batch_size:
        settings = (options.arch, options.width, options.dataset, batch, options.precision)
        plain = Network(*settings, BASELINE, 1, "model", layout=options.layout)
        made = [replace(plain, method=method, rank=rank) for method in chosen for rank in ranks]
        networks += [_planned(plain.of_run(run)) for run in options.run] or made
    rows: list[dict[str, Any]] = []
    for network in bar(networks, "infer", 0, len(networks)):
        rows.append({**measure(network, options, device), **columns(options, device)})
        path = write(rows, options.results_dir, "infer")
    show(rows, _COLUMNS, "forward pass; speedup: dense / ours, in pairs")
    print(path)


def _planned(network: Network) -> Network:
    """With the plans that a pass takes: those that were measured are of training steps."""
    return replace(network, plan="model") if network.plan == "measure" else network


def measure(network: Network, options: InferOptions, device: torch.device) -> dict[str, Any]:
    """One network at one batch size: parameters, milliseconds, and how many times faster than dense."""
    dtype = compute_dtype(network.precision)  # of the weights too: nothing is cast on the way
    dense = network.dense.build(device).to(dtype)
    model, images = network.build(device).to(dtype), network.images(device).to(dtype)
    along = rates(device, network.precision)
    folded = fold(model, network.image, plan=options.fold_plan, batch_size=network.batch_size, rates=along)
    folded = folded.to(memory_format=torch.channels_last)
    networks = {"dense": dense, "folded": folded, "factorised": model}
    parameters = {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()}
    calls = {name: finished(Inference(one, images), device) for name, one in networks.items()}
    times = compare(calls.pop("dense"), calls, options.repeats)
    ours, plain = times["factorised"], times["folded"]
    return {
        "arch": network.arch,
        "width": network.width,
        "dataset": network.dataset,
        "layout": network.layout,
        "plan": network.plan,
        "method": network.method,
        "rank": network.rank,
        "run": network.run,
        "parameters": parameters["factorised"],
        "dense_parameters": parameters["dense"],
        "batch_size": network.batch_size,
        "ms": ours.rival_ms,
        "dense_ms": ours.ours_ms,
        **spread("speedup", ours.ratios),
        "folded_parameters": parameters["folded"],
        "folded_ms": plain.rival_ms,
        **spread("folded_speedup", plain.ratios),
    }
