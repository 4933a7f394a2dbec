"""A trained dense network with tensorly-torch's layers fitted to its weights, for ``tdc train`` to go on with.

    pip install -e '.[peers]'
    python scripts/peer_network.py init_from=RUN method=cp rank=3x     # words of tdc train; the last line is FILE
    PYTHONPATH=scripts tdc train method=dense init_from=FILE 'arch.target={_target_: peer_network.network, file: FILE}'

Each layer that ``compress`` would hold as cores becomes theirs at the same ranks, by ``FactorizedConv.from_conv`` or
``FactorizedLinear.from_linear``. One whose output is not that of its reconstructed weight is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peer_layers import CHANNELS, PAIRED, SEPARATE, modes
from torch import Tensor, nn

from tdcompress.cli.shared.jobs import asked, job_of
from tdcompress.config.schema import TrainConfig
from tdcompress.device.files import RunError, write_whole
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import factorised
from tdcompress.models.build import build
from tdcompress.results.identity import plain, typed
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.launch.job import Job
from tdcompress.train.network import Image, dense, sketched
from tdcompress.train.weights import read_weights

_TOLERANCE = 1e-4  # of a difference of outputs, relative to the largest of them


@dataclass(frozen=True)
class Theirs:
    """One of their factorisations: its name, our settings of the same topology, and its rank, from our layer."""

    name: str
    settings: dict[str, Any]
    rank: Callable[[Factorised], Any]


def _sides(ours: Factorised) -> tuple[int, ...]:
    (out, into, *taps), bonds = ours.weight_shape, ours.graph.ranks
    return (bonds.get("r_o", out), bonds.get("r_i", into), *taps)  # where ours has no factor, it has the full rank


def _chain(ours: Factorised) -> tuple[int, ...]:
    out, into, *taps = ours.weight_shape
    sizes = (into, *taps, out) if taps else [i * o for i, o in zip(*modes(ours), strict=True)]
    full = {f"r{k}": min(prod(sizes[:k]), prod(sizes[k:])) for k in range(1, len(sizes))}
    return (1, *(full | ours.graph.ranks).values(), 1)


THEIRS: dict[str, dict[type[nn.Module], Theirs]] = {
    "cp": {
        nn.Conv2d: Theirs("cp", SEPARATE, lambda ours: ours.graph.ranks["r"]),
        nn.Linear: Theirs("cp", CHANNELS, lambda ours: ours.graph.ranks["r"]),
    },
    "tucker": {
        nn.Conv2d: Theirs("tucker", {"kernel": "open", **CHANNELS}, _sides),
        nn.Linear: Theirs("tucker", CHANNELS, _sides),
    },
    "tt": {nn.Conv2d: Theirs("tt", SEPARATE, _chain), nn.Linear: Theirs("blocktt", PAIRED, _chain)},
}
"""By our method and the class of the dense layer."""


def network(in_channels: int, classes: int, image_size: int, file: str) -> nn.Module:
    """The network of ``run``'s ``file``, for its weights to be loaded into; what ``arch.target`` names."""
    said = read_weights(file).config
    if said is None:
        raise ConfigError(f"{file} is no file of peer_network.py")
    config = typed(said)
    model = build(config.arch, in_channels, classes, image_size)
    for name, ours in _ours(model, config, (in_channels, image_size, image_size)).items():
        model.set_submodule(name, _layer(model.get_submodule(name), ours, fit=False))
    return model


class Unfit(ConfigError):
    """A layer of theirs that fails, or computes something else than its weight says; the exit status is 4 then."""


def run(words: Sequence[str]) -> None:
    """Fit the network of each configuration that ``words`` ask for, and write it."""
    for job in asked(words, job_of):
        _fit(job.get())


def _fit(job: Job) -> None:
    config = job.config
    if config.init_from is None:
        raise ConfigError("say which trained network the layers are fitted to: init_from=RUN")
    if config.rank.needs_weights:
        raise ConfigError(f"rank={config.rank} follows from weights, which the network is built without: give a number")
    if getattr(config.rank, "adaptive", False):
        raise ConfigError(f"rank={config.rank} is cut while training, which their layers cannot be")
    model, image = dense(config)
    weights = read_weights(config.init_from, model)
    weights.refuse_factorised()
    weights.load_into(model)
    for name, ours in _ours(model, config, image).items():
        twin: Any = model.get_submodule(name)
        try:
            new = _layer(twin, ours, fit=True)
            lost = _error(new, twin, ours)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:  # theirs
            raise Unfit(f"{name}: tensorly-torch's layer fails: {' '.join(str(error).split())}") from error
        parameters = (sum(p.numel() for p in layer.parameters()) for layer in (new, ours))
        print("{}: {:,} parameters, ours {:,}; ||W - What|| / ||W|| = {:.4f}".format(name, *parameters, lost))
        model.set_submodule(name, new)
    path = Path(config.results_dir, "peers", *job.directory.parts[-4:-1], f"{job.directory.name}.pt")
    write_whole(path, lambda file: torch.save({"config": plain(config), "model": model.state_dict()}, file))
    print(path)


def _ours(model: nn.Module, config: TrainConfig, image: Image) -> dict[str, Factorised]:
    """The layers that ``compress`` would hold as cores, by their names, in their topologies and at its ranks."""
    format = config.method.format
    if format not in THEIRS:
        raise ConfigError(f"method={format}: tensorly-torch's layers are {', '.join(THEIRS)}")
    layers = {}
    for name in factorised(sketched(config, model, image)):
        layers[name] = _theirs(model.get_submodule(name), format).settings
    return factorised(sketched(replace(config, method=replace(config.method, layers=layers)), model, image))


def _theirs(twin: nn.Module, format: str) -> Theirs:
    if type(twin) not in THEIRS[format]:
        raise ConfigError(f"method={format}: tensorly-torch has no such {type(twin).__name__}")
    return THEIRS[format][type(twin)]


def _layer(twin: nn.Module, ours: Factorised, fit: bool) -> Any:
    """Theirs in place of ``twin``, at the ranks of ``ours``, its weight fitted or random."""
    from tltorch import FactorizedConv, FactorizedLinear

    theirs = _theirs(twin, ours.format)
    held = {"factorization": theirs.name, "rank": theirs.rank(ours)}
    fits = {"random_state": 0} if theirs.name in ("cp", "tucker") else {}
    if isinstance(twin, nn.Conv2d):
        settings = {"decompose_weights": fit, "decomposition_kwargs": fits, "implementation": "factorized"}
        return FactorizedConv.from_conv(twin, **settings, **held)
    (ins, outs), bias = modes(ours), twin.bias is not None
    held["implementation"] = "reconstructed"  # the other one contracts by tensordot, which has no autocast
    if not fit:
        return FactorizedLinear(ins, outs, bias, **held)
    sizes = {"in_tensorized_features": ins, "out_tensorized_features": outs, "auto_tensorize": False}
    return FactorizedLinear.from_linear(twin, bias=bias, decomposition_kwargs=fits, **sizes, **held)


@torch.no_grad()
def _error(new: Any, twin: Any, ours: Factorised) -> float:
    """||W - What|| / ||W||. Raises ``ValueError`` where the outputs are not those of torch's layer with What."""
    x = torch.randn(2, *ours.planner.input_shape[1:])
    weight: Tensor
    if isinstance(twin, nn.Conv2d):
        weight = new.weight.to_tensor()
        weight = weight.movedim(-1, 0) if ours.format == "tt" else weight
        wanted = F.conv2d(x, weight, twin.bias, twin.stride, twin.padding, twin.dilation, twin.groups)
    else:
        weight = new.weight.to_matrix()
        wanted = F.linear(x, weight, twin.bias)
    difference = float((new(x) - wanted).abs().max() / wanted.abs().max())
    if not difference < _TOLERANCE:
        raise ValueError(f"its outputs are not those of its reconstructed weight, but {difference:.1e} of them away")
    return float((weight - twin.weight).norm() / twin.weight.norm())


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except Unfit as error:
        print(f"peer_network: {error}", file=sys.stderr)
        sys.exit(4)
    except (ConfigError, ModuleNotFoundError, RunError) as error:
        sys.exit(f"peer_network: {error}")
