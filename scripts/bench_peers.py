"""The layers of tensorly-torch and tednet against ours: the same topology and ranks, forward and backward, in one run.

    pip install -e '.[peers]'
    python scripts/bench_peers.py method=cp rank=8 batch_size=100 small_batch=8

Writes results/bench/peers.csv. ``difference`` is the largest one of the outputs, relative to the largest output, where
theirs start from our weights. They get images in PyTorch's default memory format, which their code is written for.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from peer_layers import PEERS, Peer
from torch import Tensor, nn

from tdcompress import compress
from tdcompress.bench.layers import LayerShape, Pass, layer_shapes
from tdcompress.bench.machine import columns, methods, rates, start
from tdcompress.bench.options import Options
from tdcompress.bench.table import spread, write
from tdcompress.config.words import read
from tdcompress.device.clock import compare, finished
from tdcompress.layers.base import Factorised
from tdcompress.results.terminal import show
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.rank import Rank, parse
from tdcompress.train.watch import bar

_SHOWN = (
    *("peer", "layer", "method", "layout", "rank", "batch_size", "parameters", "peer_parameters", "difference"),
    *("ms", "peer_ms", "speedup"),
)


@dataclass(frozen=True)
class PeerOptions(Options):
    """``small_batch``: a second batch size, at which what a call costs shows more than what it computes."""

    layers: tuple[str, ...] = ("vgg16.conv1_2", "vgg16.conv3_2", "vgg16.conv4_2", "lenet.fc1", "linear4096")
    rank: tuple[str, ...] = ("8", "reference")
    batch_size: int = 100
    small_batch: int = 8
    precision: str = "fp32"


def run(words: Sequence[str]) -> None:
    """Time every layer of theirs that is asked for, at every rank and both batch sizes; a row each."""
    options = read(words, PeerOptions)
    if options.precision != "fp32":
        raise ConfigError(f"precision={options.precision}: tensordot, which they use, has no autocast; only fp32 works")
    chosen, shapes = methods(options), layer_shapes(options.layers)
    cases = [
        (peer, shape, rank, batch)
        for shape in shapes
        for peer in PEERS
        for rank in map(parse, options.rank)
        for batch in (options.batch_size, options.small_batch)
        if peer.method in chosen and isinstance(shape.layer, peer.kind)
    ]
    if not cases:
        raise ConfigError(f"no layer here has a peer by {', '.join(chosen)}")
    options, device = start(options)
    rows: list[dict[str, Any]] = []
    for case in bar(cases, "peers", 0, len(cases)):
        row = measure(*case, options, device)
        if row is not None:
            rows.append({**row, **columns(options, device)})
            write(rows, options.results_dir, "peers")
    show(rows, _SHOWN, "forward and backward; speedup: theirs / ours, in pairs")
    print(write(rows, options.results_dir, "peers"))


def measure(
    peer: Peer, shape: LayerShape, rank: Rank, batch: int, options: PeerOptions, device: torch.device
) -> dict[str, Any] | None:
    """One layer of theirs beside ours, or None where so high a rank leaves our layer dense."""
    twin = shape.dense(torch.device("cpu"))
    settings = {"keep": [], "batch_size": batch, **peer.settings}
    settings["rates"] = rates(device, options.precision)
    ours = compress(nn.Sequential(twin), peer.method, rank, shape.input_shape, **settings)[0]
    if not isinstance(ours, Factorised):
        return None
    with redirect_stdout(StringIO()):  # tednet's constructors print
        theirs = peer.make(ours, shape.layer).to(device)
    ours = ours.to(device)
    plain = torch.randn(batch, *shape.input_shape, device=device)
    images = plain.contiguous(memory_format=torch.channels_last) if plain.dim() == 4 else plain.clone()
    difference = _difference(ours, theirs, plain) if peer.takes_weights else None
    sides = [(ours, images.requires_grad_()), (theirs, plain.requires_grad_())]
    calls = [finished(Pass(layer, x, options.precision), device) for layer, x in sides]
    pairs = compare(calls[0], {"peer": calls[1]}, options.repeats)["peer"]
    return {
        "peer": f"{peer.package} {peer.variant}".strip(),
        "version": importlib.metadata.version(peer.package),
        "layer": shape.name,
        "method": peer.method,
        "layout": peer.settings["layout"],
        "rank": rank.plain,
        "batch_size": batch,
        "parameters": sum(p.numel() for p in ours.parameters()),
        "peer_parameters": sum(p.numel() for p in theirs.parameters()),
        "difference": difference,
        "ms": pairs.ours_ms,
        "peer_ms": pairs.rival_ms,
        **spread("speedup", pairs.speedups),
        "plan": ours.plan.text,
    }


def _difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        wanted, got = ours(x), theirs(x)
    return ((wanted - got).abs().max() / wanted.abs().max()).item()


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except (ConfigError, ModuleNotFoundError) as error:
        sys.exit(f"bench_peers: {error}")
