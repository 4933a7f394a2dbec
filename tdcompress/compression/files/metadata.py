"""What a file of a compressed model says beside its tensors: how each layer is held, as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ... import __version__
from ...device.archive import Damaged
from ...device.files import RunError
from ...layers.base import Factorised
from ...layers.kinds import factorised
from ...tensor.contraction.path import Path as Contraction
from ...tensor.errors import ConfigError
from ...tensor.graph import Core, Graph
from ..survey.trace import Trace, kept_trace
from .state_dicts import StateDict

FORMAT = 1  # of what the metadata say
KEY = "tdcompress"


@dataclass(frozen=True)
class Held:
    """How one layer is held: ``cores_of`` names the layer whose cores it uses, itself or one of the same weight."""

    format: str
    layout: str
    weight_shape: tuple[int, ...]
    graph: Graph
    cores_of: str
    path: Contraction
    planner: dict[str, Any]
    checkpoint: bool
    contiguous: bool = False

    @staticmethod
    def of(layer: Factorised, cores_of: str) -> Held:
        """What a layer is."""
        planner = {key: getattr(layer.planner, key) for key in ("input_shape", "batch_size", "plan", "uses")}
        return Held(
            layer.format,
            layer.layout,
            tuple(layer.weight_shape),
            layer.graph,
            cores_of,
            layer.plan.path,
            planner,
            layer.checkpoint,
            layer.contiguous,
        )

    def plain(self) -> dict[str, Any]:
        """Lists and numbers only, for a file."""
        graph = {**asdict(self.graph), "sizes": dict(self.graph.sizes)}
        return vars(self) | {"graph": graph, "path": self.path.plain()}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> Held:
        """What ``plain`` wrote down."""
        planner = {**values["planner"], "input_shape": tuple(values["planner"]["input_shape"])}
        parsed = {
            "weight_shape": tuple(values["weight_shape"]),
            "graph": _graph(values["graph"]),
            "path": Contraction.from_plain(values["path"]),
            "planner": planner,
        }
        return Held(**{**values, **parsed})


@dataclass(frozen=True)
class Metadata:
    """``layers`` held as cores, the reason of those ``left`` dense, the trace, and the run's ``config``, if any."""

    layers: dict[str, Held]
    left: dict[str, str]
    trace: Trace | None
    config: dict[str, Any] | None

    @staticmethod
    def of(model: nn.Module, config: Mapping[str, Any] | None) -> Metadata:
        """What a compressed model is."""
        first: dict[int, str] = {}
        layers = {
            name: Held.of(layer, first.setdefault(id(layer.tensors()[0]), name))
            for name, layer in factorised(model).items()
        }
        left = {name: vars(one)["left_dense"] for name, one in model.named_modules() if "left_dense" in vars(one)}
        return Metadata(layers, left, kept_trace(model), None if config is None else dict(config))

    def text(self) -> str:
        """As JSON. Raises ``ConfigError`` for a ``config`` that it cannot hold."""
        said = {
            "format": FORMAT,
            "version": __version__,
            "layers": {name: held.plain() for name, held in self.layers.items()},
            "left": self.left,
            "trace": None if self.trace is None else _plain_trace(self.trace),
            "config": self.config,
        }
        try:
            return json.dumps(said)
        except TypeError as error:
            raise ConfigError(f"config= is of numbers, text, lists and dictionaries: {error}") from None


def described(found: StateDict) -> Metadata | None:
    """What ``save`` wrote beside the tensors of this file, None for a file of anything else.

    Raises ``RunError`` for a file that is damaged or of a later version.
    """
    if KEY not in found.metadata:
        return None
    try:
        said: dict[str, Any] = json.loads(found.metadata[KEY])
        if said["format"] == FORMAT:
            layers = {name: Held.from_plain(values) for name, values in said["layers"].items()}
            trace = None if said["trace"] is None else _trace(said["trace"])
            return Metadata(layers, said["left"], trace, said["config"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{found.source} is damaged: its metadata are not what save writes ({error})") from error
    raise RunError(
        f"{found.source} is of format {said['format']}, written by tdcompress {said.get('version')}; this is "
        f"{__version__}, which reads format {FORMAT}: use that version"
    )


def _graph(said: Mapping[str, Any]) -> Graph:
    cores = tuple(Core(core["name"], tuple(core["indices"])) for core in said["cores"])
    lists = {key: tuple(said[key]) for key in ("modes", "inputs", "outputs", "weight_shape")}
    return Graph(cores=cores, sizes=dict(said["sizes"]), **lists)


def _plain_trace(seen: Trace) -> dict[str, Any]:
    inputs = {name: [[list(shape), calls] for shape, calls in shapes.items()] for name, shapes in seen.inputs.items()}
    return {**asdict(seen), "inputs": inputs}


def _trace(said: Mapping[str, Any]) -> Trace:
    inputs = {
        name: Counter({tuple(shape): calls for shape, calls in shapes}) for name, shapes in said["inputs"].items()
    }
    return Trace(**{**said, "inputs": inputs})
