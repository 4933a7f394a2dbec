"""``tdc bench export``: files of networks as they are read, every format with its cores and folded, against dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..compression.comparison import BATCHES, Image, Network, infer
from ..compression.export.files import WEIGHTS, WRITERS, plain
from ..compression.survey.counts import count
from ..config.words import choice, read
from ..device.clock import compare
from ..results.terminal import show
from ..tensor.formats import BASELINE, find_format
from ..tensor.layout import LAYOUTS
from ..tensor.rank import parse
from ..train.watch import bar
from . import training
from .machine import columns, methods, start
from .options import NetworkOptions
from .table import spread, write

_COLUMNS = (
    *("arch", "width", "method", "rank", "layout", "macs", "dense_macs", "bytes", "dense_bytes", "smaller"),
    *("folded_bytes", "batch_size", "ms", "dense_ms", "speedup", "folded_speedup"),
)


@dataclass(frozen=True)
class ExportOptions(NetworkOptions):
    """``format``: of the files, but for dense weights; ``batch_size``: images of the passes that are timed."""

    rank: tuple[str, ...] = ("10x",)
    layout: tuple[str, ...] = choice(("channels", "paired"), LAYOUTS)
    batch_size: tuple[int, ...] = BATCHES
    format: str = choice("onnx", [name for name, writer in WRITERS.items() if writer.weights and writer.of_plain])
    device: str = choice("cpu", ["cpu"])
    precision: str = choice("fp32", ["fp32"])


@dataclass(frozen=True)
class File:
    """A file that was written: its bytes, and the network that it holds."""

    bytes: int
    network: Network


class Twin:
    """The dense network, and the file of it."""

    def __init__(self, network: training.Network, format: str, device: torch.device) -> None:
        model = network.build(device).eval()
        self.macs, self.file = count(model, network.image)["macs"], written(model, network.image, format)


def run(words: Sequence[str]) -> None:
    """Write and time every method, rank and layout asked for; a row for each batch size."""
    options = read(words, ExportOptions)
    chosen, ranks = methods(options), [parse(rank).plain for rank in options.rank]
    WRITERS[options.format].refuse_missing()
    options, device = start(options)
    settings = (options.arch, options.width, options.dataset, max(options.batch_size), options.precision)
    plain = training.Network(*settings, BASELINE, 1, "model")
    made = [
        replace(plain, method=method, rank=rank, layout=layout)
        for method in chosen
        for layout in _layouts(method, options)
        for rank in ranks
    ]
    networks = [plain.of_run(run) for run in options.run] or made
    twins: dict[training.Network, Twin] = {}
    rows: list[dict[str, Any]] = []
    for network in bar(networks, "export", 0, len(networks)):
        key = replace(network.dense, layout=None)
        twins[key] = twins.get(key) or Twin(key, options.format, device)
        rows += [{**row, **columns(options, device)} for row in measure(network, twins[key], options, device)]
        path = write(rows, options.results_dir, "export")
    show(rows, _COLUMNS, "a file with cores; smaller: dense bytes / its own; speedup: dense / ours, in pairs")
    print(path)


def _layouts(method: str, options: ExportOptions) -> Sequence[str]:
    """Those asked for that the format has, or else all of its own."""
    own = find_format(method).layouts
    return [layout for layout in options.layout if layout in own] or own


def written(model: nn.Module, image: Image, format: str) -> File:
    """The file of a network, read again."""
    content = WRITERS[format].write(model, image, {})
    return File(len(content), WRITERS[format].read(content, model))


def measure(
    network: training.Network, dense: Twin, options: ExportOptions, device: torch.device
) -> list[dict[str, Any]]:
    """One network at every batch size: bytes, milliseconds, and how many times faster than the ``dense`` file."""
    model = network.build(device).eval()
    plains = {weights: plain(model, network.image, weights) for weights in WEIGHTS}
    files = {weights: written(one, network.image, options.format) for weights, one in plains.items()}
    cores, folded = files.values()
    rows = []
    for batch in options.batch_size:
        images = torch.randn(batch, *network.image)
        baseline = partial(infer, dense.file.network, images)
        # One by one: called more often than its rivals, the baseline's weights would stay in the cache.
        ours, others = (
            compare(baseline, {weights: partial(infer, file.network, images)}, options.repeats)[weights]
            for weights, file in files.items()
        )
        rows.append(
            {
                "arch": network.arch,
                "width": network.width,
                "method": network.method,
                "rank": network.rank,
                "layout": network.layout,
                "run": network.run,
                "format": options.format,
                "parameters": count(model, network.image)["parameters"],
                "macs": count(plains["cores"], network.image)["macs"],
                "dense_macs": dense.macs,
                "bytes": cores.bytes,
                "dense_bytes": dense.file.bytes,
                "smaller": dense.file.bytes / cores.bytes,
                "folded_bytes": folded.bytes,
                "batch_size": batch,
                "ms": ours.rival_ms,
                "dense_ms": ours.ours_ms,
                **spread("speedup", ours.ratios),
                "folded_ms": others.rival_ms,
                **spread("folded_speedup", others.ratios),
            }
        )
    return rows
