"""The full-rank start of a run: which layers are dense at first, for how long, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...compression.stable_ranks import StableRanks, latest_epoch
from ...compression.survey.counts import count
from ...config.schema import AUTO, TrainConfig
from ...layers.kinds import factorised
from ...results.identity import resolved
from ...tensor.contraction.cost import Rates
from ...tensor.rank import Budget, Size
from ..network import Image, cutting, sketched


@dataclass(frozen=True)
class Switch:
    """How a full-rank start ended: after ``epoch``, in ``seconds``.

    ``unbounded``: the epoch that the rule chose, None where it had not by then, or was not asked; ``shared``: the
    directory in which the dense epochs were trained, None if the run trained them itself.
    """

    epoch: int
    seconds: float
    unbounded: int | None
    shared: str | None = None


@dataclass
class Start:
    """Of a run that trains dense until the end of epoch ``last``, or until ``ranks`` have settled before that.

    ``names``: the layers that are to be held as cores; ``switch``: how it ended, None as long as it lasts; ``shared``:
    as ``Switch`` has it.
    """

    names: list[str]
    last: int
    ranks: StableRanks | None = None
    switch: Switch | None = None
    shared: str | None = None

    @staticmethod
    def of(
        config: TrainConfig, model: nn.Module, image: Image, rates: Rates, log: Callable[[str], Any]
    ) -> Start | None:
        """The start that ``config`` asks for, of a ``model`` before training; None if it asks for none.

        Raises ``ConfigError`` where no layer would be held as cores, or the budget cannot be met.
        """
        asked = resolved(config).full_rank_epochs
        if asked == 0:
            return None
        needs_weights = config.rank.needs_weights
        then = sketched(config, model, image, Size(1) if needs_weights else None, rates)
        names = list(factorised(then))
        # Of all layers that may become cores: when the ranks have settled depends on no method.
        ranks = StableRanks.of(model, config.epochs, keep=config.arch.keep) if asked == AUTO else None
        met, by_cuts = cuts(config)
        if by_cuts:
            sketched(config, model, image, cutting(config), rates)  # raises now what would be told after hours
        counts = count(then, image)
        sizes = {"parameters": f"{counts['parameters']:,} parameters", "MACs": f"{counts['macs']:,} MACs"}
        said = f"{sizes[met]}, reached by cuts{by_cuts}" if by_cuts else ", ".join(sizes.values())
        log(f"{length(config)}, then cores" + ("" if needs_weights else f" with {said}"))
        return Start(names, last_epoch(config), ranks)

    @property
    def lasts(self) -> bool:
        """Whether the network is dense still."""
        return self.switch is None

    def due(self, epoch: int) -> bool:
        """Whether the network is to be switched once so many epochs have ended."""
        return self.lasts and (epoch == self.last or self._ready(epoch))

    def _ready(self, epoch: int) -> bool:
        return epoch > 0 and self.ranks is not None and self.ranks.ready

    def close_epoch(self, model: nn.Module) -> None:
        """Look at the weights of ``model`` at the end of a dense epoch."""
        if self.lasts and self.ranks is not None:
            self.ranks.measure(model)

    def end(self, epoch: int, seconds: float) -> Switch:
        """Note that the network was switched."""
        self.switch = Switch(epoch, seconds, epoch if self._ready(epoch) else None, self.shared)
        return self.switch

    def said(self) -> str:
        """How it ended, in a line."""
        switch = self.switch
        assert switch is not None
        line = f"switched to cores after epoch {switch.epoch} in {switch.seconds:.1f} s"
        if self.ranks is None:
            return line
        return (
            f"{line}, {'as the ranks had settled' if switch.unbounded is not None else 'before the ranks had settled'}"
        )

    def plain(self) -> dict[str, Any]:
        """Plain values, as a checkpoint keeps them."""
        return asdict(self)

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> Start:
        """What ``plain`` gave."""
        ranks, switch = values["ranks"], values["switch"]
        return Start(
            list(values["names"]),
            values["last"],
            None if ranks is None else StableRanks.from_plain(ranks),
            None if switch is None else Switch(**switch),
            values.get("shared"),
        )

    def after(self, state: Mapping[str, Any], directory: Path) -> None:
        """Be where the dense epochs in ``directory`` ended with this checkpoint."""
        self.ranks, self.shared = Start.from_plain(state["start"]).ranks, str(directory)


def length(config: TrainConfig) -> str:
    """For how long a run of this ``resolved`` configuration is at full rank, in words."""
    most = "at most " if config.full_rank_epochs == AUTO else ""
    return f"full_rank_epochs={config.full_rank_epochs}: dense for {most}{last_epoch(config)} of {config.epochs} epochs"


def last_epoch(config: TrainConfig) -> int:
    """The epoch after which a run of this ``resolved`` configuration is switched at the latest."""
    if config.full_rank_epochs != AUTO:
        return int(config.full_rank_epochs)
    return min(latest_epoch(config.epochs), config.epochs - 1 - is_cut(config))


def cuts(config: TrainConfig) -> tuple[str, str]:
    """What cuts of a run of this ``resolved`` configuration go to, and in words what follows; nothing without cuts."""
    if not is_cut(config):
        return "", ""
    met, follows = ("MACs", "parameters") if config.rank.kind == "macs" else ("parameters", "MACs")
    return met, f", which choose the ranks and so the {follows}"


def is_cut(config: TrainConfig) -> bool:
    """Whether a run of this ``resolved`` configuration reaches its ranks by cuts while training."""
    rank = cutting(config)
    return isinstance(rank, Budget) and rank.adaptive
