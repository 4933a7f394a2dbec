"""``tdc export``: a run's trained network as a file that needs nothing of this package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..compression.export import WRITERS, Network, Trained, export
from ..compression.fold import PLANS, fold
from ..compression.plans import use_plans
from ..config.words import choice, read
from ..device.clock import compare
from ..device.files import RunError
from ..results.identity import typed
from ..results.terminal import show
from ..tensor.errors import ConfigError
from ..train import checkpoint
from ..train.network import dense, fitting, restored

_ROUNDS = 21


@dataclass(frozen=True)
class ExportOptions:
    """``run`` (its directory) and ``format`` must be given; ``output``: None is the writer's name in it."""

    run: str = ""
    format: str = choice("", WRITERS)
    output: str | None = None
    plan: str = choice("model", PLANS)


def run(words: Sequence[str]) -> None:
    """``tdc export run=DIR format=onnx [output=FILE] [plan=model]``: write the file, print what each network takes.

    Raises ``ConfigError`` for bad options, ``RunError`` for a directory without a trained network, and where what was
    written is not what was trained; then there is no file.
    """
    options = read(words, ExportOptions)
    for key, example in (("run", "results/runs/digits/lenet/tt-8/seed0"), ("format", "onnx")):
        if not getattr(options, key):
            raise ConfigError(f"tdc export needs {key}=, for example {key}={example}")
    writer = WRITERS[options.format]
    missing = [package for package in writer.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"format={options.format} needs {missing[0]}: pip install -e '.[export]'")
    trained = load(Path(options.run), options.plan)
    path = Path(options.output or trained.directory / writer.name)
    written = export(trained, writer, path)
    _print_times(trained, path, written)
    print(path)


def load(directory: Path, plan: str = "model") -> Trained:
    """A run's trained network (see ``checkpoint.chosen``), folded along ``plan`` (see ``fold``) for single images.

    Raises ``RunError`` where there is no run, no checkpoint, or one that its own configuration does not fit.
    """
    if plan not in PLANS:
        raise ConfigError(f"unknown plan '{plan}', known: {', '.join(PLANS)}")
    if not directory.is_dir():
        raise RunError(f"there is no run in {directory}; tdc runs lists those there are")
    state = checkpoint.load(directory, print)
    if state is None:
        raise RunError(f"{directory} has no checkpoint: no epoch of it has ended")
    state, config = checkpoint.chosen(state, print), typed(state["config"])
    config = replace(config, precision="fp32")
    with torch.random.fork_rng([]):
        model, image = restored(config, torch.device("cpu"), directory, state)
    with fitting(directory):
        use_plans(model, state["plans"])
    model = model.to(memory_format=torch.channels_last).eval()
    twin, _ = dense(config)
    twin.load_state_dict(fold(model, image, plan="dense").state_dict())
    twin = twin.to(memory_format=torch.channels_last).eval()
    return Trained(directory, image, model, twin, fold(model, image, plan=plan))


def _print_times(trained: Trained, path: Path, written: Network) -> None:
    """A table of milliseconds for one image: medians, each network in turn with the dense one."""
    images = torch.randn(1, *trained.image)
    networks = {"as trained": trained.factorised, "folded": trained.folded, "dense": trained.dense}
    calls = {name: _inference(network, images) for name, network in networks.items()}
    times = compare(calls["dense"], calls | {path.name: _inference(written, images)}, _ROUNDS)
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    rows = [
        {"network": name, "parameters": counts.get(name), "ms": pairs.rival_ms, "speedup": pairs.ratio}
        for name, pairs in times.items()
    ]
    rows[-1]["bytes"] = path.stat().st_size
    show(rows, ("network", "parameters", "bytes", "ms", "speedup"), "one image on this CPU; speedup: dense / this one")


def _inference(network: Network, images: Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode():
            network(images)

    return forward
