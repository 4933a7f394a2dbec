"""What every benchmark takes."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..config.schema import DEVICES, PRECISIONS
from ..config.words import choice
from ..tensor.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """The ``key=value`` words of every benchmark.

    ``method``: the formats, unless said all that have the layout; ``repeats``: rounds, of which medians are told;
    ``threads``: of torch on a CPU, as many as it chooses unless said; ``results_dir``: the folder above bench/.
    """

    method: tuple[str, ...] = ()
    repeats: int = 11
    threads: int | None = None
    precision: str = choice("auto", PRECISIONS)
    device: str = choice("auto", DEVICES)
    results_dir: str = "results"


@dataclass(frozen=True)
class NetworkOptions(Options):
    """``run``: directories of runs, whose networks are timed at the ranks that training left, planned for what is
    timed; what else describes a network is theirs then.
    """

    arch: str = "vgg16"
    width: float = 1.0
    dataset: str = "cifar10"
    rank: tuple[str, ...] = ("reference",)
    run: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` where a network is described beside runs that have their own."""
        for key in fields(self) if self.run else ():
            if key.name in _DESCRIBE and getattr(self, key.name) != key.default:
                raise ConfigError(f"{key.name}= is not for run=, whose networks have their own: leave one of them out")


_DESCRIBE = ("arch", "width", "dataset", "method", "rank", "layout", "parameters", "plan", "checkpoint")
