"""``tdc bench layers``: forward and backward of single layers against the dense layer and the hand-written chain."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from ..compression.left import left_dense
from ..compression.spec import build_graph
from ..compression.survey.counts import count
from ..compression.survey.inputs import Examples
from ..compression.survey.plans import tunable, tune
from ..compression.survey.trace import trace
from ..compression.swap import compress
from ..config.schema import ArchConfig, DatasetConfig, MethodConfig
from ..config.words import read
from ..data.sources import shape as data_shape
from ..device.clock import compare, finished
from ..device.precision import autocast
from ..models.build import build
from ..results.terminal import show
from ..tensor.build import with_rank
from ..tensor.errors import ConfigError
from ..tensor.formats import find_format
from ..tensor.rank import Budget, Rank, Size, parse
from ..train.watch import bar
from .machine import columns, methods, rates, start
from .options import Options
from .rivals.hand import hand_chain
from .table import spread, write

NETWORKS = {"vgg16": "cifar10", "lenet": "mnist"}
"""Networks whose layers are timed, and the data set whose images they get."""


_COLUMNS = (
    *("layer", "method", "rank", "parameters", "macs", "dense_macs", "ms", "dense_ms", "ratio", "hand_ms"),
    *("hand_ratio", "plan"),
)


@dataclass(frozen=True)
class LayerOptions(Options):
    """``layers``: name patterns; ``rank``: bond dimensions, ``reference``, ``half`` or ``full``; ``allow_larger``:
    factorise layers even where that makes them larger.

    A layer whose cores would hold no fewer entries than its weight stays dense, as in training: its ratio shows how
    far two times of the same thing lie apart. With ``allow_larger`` it is factorised.
    """

    layers: tuple[str, ...] = ("*",)
    rank: tuple[str, ...] = ("8", "32", "reference", "half", "full")
    batch_size: int = 100
    plan: str = "model"
    allow_larger: bool = False


@dataclass(frozen=True)
class LayerShape:
    """A dense layer without storage (on torch's ``meta`` device), and the shape of its input for one image."""

    name: str
    layer: Any
    input_shape: tuple[int, ...]

    def dense(self, device: torch.device) -> Any:
        """The layer with its initial weights, channels last."""
        layer = copy.deepcopy(self.layer).to_empty(device=device)
        layer.reset_parameters()
        return layer.to(memory_format=torch.channels_last)


def layer_shapes(patterns: Sequence[str] = ("*",)) -> list[LayerShape]:
    """The distinct layers that ``compress`` swaps in ``NETWORKS``, and a linear layer 4096 to 4096.

    Raises ``ConfigError`` with their names where no pattern fits any.
    """
    found: dict[tuple[str, tuple[int, ...]], LayerShape] = {}
    with torch.device("meta"):
        for arch, dataset in NETWORKS.items():
            channels, size, classes = data_shape(DatasetConfig(dataset))
            model = build(ArchConfig(name=arch), channels, classes, size)
            inputs = trace(model, Examples.of(model, (channels, size, size))).inputs
            left = left_dense(list(inputs), model, None)
            for name in [name for name in inputs if name not in left]:
                layer, shape = model.get_submodule(name), next(iter(inputs[name]))[1:]
                found.setdefault((repr(layer), shape), LayerShape(f"{arch}.{name.split('.')[-1]}", layer, shape))
        shapes = [*found.values(), LayerShape("linear4096", nn.Linear(4096, 4096), (4096,))]
    chosen = [shape for shape in shapes if any(fnmatch(shape.name, pattern) for pattern in patterns)]
    if not chosen:
        raise ConfigError(f"layers={','.join(patterns)} fits none of {', '.join(shape.name for shape in shapes)}")
    return chosen


class Pass:
    """One forward and backward pass of a layer, with the gradients of the input and of all parameters."""

    def __init__(self, layer: nn.Module, images: Tensor, precision: str) -> None:
        self.layer, self.images, self.precision = layer, images, precision
        self.leaves = [images, *layer.parameters()]
        self.gradient = torch.ones_like(self._forward())

    def _forward(self) -> Tensor:
        with autocast(self.images.device, self.precision):
            return self.layer(self.images)

    def __call__(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None
        self._forward().backward(self.gradient)


def run(words: Sequence[str]) -> None:
    """Time every layer, method and rank asked for; a row each."""
    options = read(words, LayerOptions)
    chosen = methods(options)
    for rank in options.rank:
        asked = parse(rank) if rank not in ("half", "full") else None
        if asked is not None and (isinstance(asked, Budget) or asked.needs_weights):
            raise ConfigError(f"rank={rank} is not of a single layer: use a size such as 8, reference, half or full")
    shapes = layer_shapes(options.layers)
    options, device = start(options)
    cases = [(shape, method, rank) for shape in shapes for method in chosen for rank in options.rank]
    rows: list[dict[str, Any]] = []
    for case in bar(cases, "layers", 0, len(cases)):
        rows.append({**measure(*case, options, device), **columns(options, device)})
        path = write(rows, options.results_dir, "layers")
    show(rows, _COLUMNS, f"forward and backward of a batch of {options.batch_size}; ratio: ours / dense, in pairs")
    print(path)


def measure(
    shape: LayerShape, method: str, rank: str, options: LayerOptions, device: torch.device
) -> dict[str, float | int | str | None]:
    """One layer in one format: counts (per image), milliseconds and ratios."""
    dense = shape.dense(device)
    size = bond_size(rank, dense.weight.shape, method)
    model = nn.Sequential(copy.deepcopy(dense))
    compress(
        model,
        method,
        size,
        shape.input_shape,
        keep=[],
        batch_size=options.batch_size,
        rates=rates(device, options.precision),
        plan=options.plan,
        allow_larger=options.allow_larger,
    )
    images = torch.randn(options.batch_size, *shape.input_shape, device=device)
    if images.dim() == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    if options.precision == "bf16":
        images = images.bfloat16()  # as the layer before leaves them
    if tunable(model):
        tune(model, images, autocast(device, options.precision))
    images.requires_grad_()
    report = count(model, shape.input_shape)["layers"][0]
    hand = hand_chain(model[0])
    rivals = {"dense": dense, **({"hand": hand} if hand is not None else {})}
    ours, *others = (finished(Pass(layer, images, options.precision), device) for layer in (model[0], *rivals.values()))
    times = compare(ours, dict(zip(rivals, others, strict=True)), options.repeats)
    by_hand = times.get("hand")
    return {
        "layer": shape.name,
        "shape": "x".join(map(str, report["shape"])),
        "input": "x".join(map(str, shape.input_shape)),
        "batch_size": options.batch_size,
        "method": method,
        "rank": rank,
        "ranks": " ".join(f"{bond}={size}" for bond, size in report["ranks"].items()),
        **{key: report[key] for key in ("parameters", "dense_parameters", "macs", "dense_macs")},
        "ms": times["dense"].ours_ms,
        "dense_ms": times["dense"].rival_ms,
        **spread("ratio", times["dense"].ratios),
        "hand_ms": by_hand and by_hand.rival_ms,
        **spread("hand_ratio", by_hand.ratios if by_hand else ()),
        "plan": report["plan"],
    }


def bond_size(rank: str, weight_shape: Sequence[int], method: str) -> Rank:
    """The rank that ``compress`` takes: ``full`` is the largest that a bond of this weight can use."""
    if rank not in ("half", "full"):
        return parse(rank)
    format = find_format(method)
    graph = build_graph(weight_shape, format, MethodConfig(format=method))
    full = max(with_rank(graph, format, Size(graph.entries), weight_shape).ranks.values(), default=1)
    return Size(full if rank == "full" else max(1, full // 2))
