"""What is asked of the bonds: a size, one for each, a rule that finds them, or a budget of the whole network."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, SupportsIndex

from .errors import ConfigError

_LIMIT = 10**18  # sizes are smaller: their digits are a file name's


@dataclass(frozen=True)
class _Rank:
    """What is asked. ``str`` gives the one expression that means it: ``parse(str(rank)) == rank``.

    ``needs_weights``: it says something of trained weights only.
    """

    needs_weights: ClassVar[bool] = False

    @property
    def plain(self) -> int | str:
        """As JSON files and tables hold it."""
        return str(self)


@dataclass(frozen=True)
class Size(_Rank):
    """Every bond has this size, where it can use it."""

    value: int

    def __post_init__(self) -> None:
        if abs(self.value) >= _LIMIT:
            raise ConfigError("rank must have at most 18 digits")
        if self.value < 1:
            raise ConfigError(f"rank={self.value} must be at least 1")

    def __str__(self) -> str:
        return str(self.value)

    @property
    def plain(self) -> int:
        """The number itself."""
        return self.value


@dataclass(frozen=True)
class Sizes(_Rank):
    """The bonds have these sizes, in the order of ``graph.bonds``."""

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        for value in self.values:
            Size(value)

    def __str__(self) -> str:
        return "-".join(map(str, self.values))


@dataclass(frozen=True)
class Reference(_Rank):
    """The sizes of the reference system, see ``Format.reference_rank``."""

    def __str__(self) -> str:
        return "reference"


@dataclass(frozen=True)
class Vbmf(_Rank):
    """As many components of each unfolding as are signal, see ``fitting.vbmf``."""

    needs_weights = True

    def __str__(self) -> str:
        return "vbmf"


@dataclass(frozen=True)
class Energy(_Rank):
    """The smallest sizes that keep this share of the weight's squared norm at every bond."""

    share: float
    needs_weights = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"rank={self} must be a share of the weight's squared norm between 0 and 1")

    def __str__(self) -> str:
        return f"energy:{_number(self.share)}"


@dataclass(frozen=True)
class Budget(_Rank):
    """What the whole network may cost, dense layers, biases and norms included.

    ``kind``: ``ratio``, dense parameters / parameters; ``params``, a parameter count; ``macs``, MACs / dense MACs.
    ``adaptive``: to be reached while training, by cuts.
    """

    kind: str
    value: float
    adaptive: bool = False

    def __post_init__(self) -> None:
        if not (self.value > 0 and math.isfinite(self.value)):
            raise ConfigError(f"rank={self} must be a finite number greater than 0")
        if self.kind == "params" and not float(self.value).is_integer():
            raise ConfigError(f"rank={self} must be a whole number of parameters")
        if self.kind == "macs" and self.value > 1:
            raise ConfigError(f"rank={self} must be a share of the dense MACs, at most 1")
        if self.adaptive and ((self.kind == "ratio" and self.value <= 1) or (self.kind == "macs" and self.value == 1)):
            needed = "more than 1x" if self.kind == "ratio" else "less than 1"
            raise ConfigError(f"rank={self} leaves nothing to cut while training: it must be {needed}")

    def __str__(self) -> str:
        number = _number(self.value)
        return "adaptive:" * self.adaptive + (f"{number}x" if self.kind == "ratio" else f"{self.kind}:{number}")

    def parameters(self, dense: int) -> float:
        """What a network whose dense twin has ``dense`` parameters may have."""
        return dense / self.value if self.kind == "ratio" else self.value

    def said(self, total: int, dense: int) -> str:
        """The figure of a network that costs ``total`` where its dense twin costs ``dense``, in the budget's terms."""
        if self.kind == "ratio":
            return f"{dense / total:.4g}x"
        return f"{total:,} parameters" if self.kind == "params" else f"{total / dense:.4g} of the dense MACs"


LayerRank = Size | Sizes | Reference | Vbmf | Energy
"""What one layer can have as its own."""

Rank = LayerRank | Budget
"""What is asked of the bonds; ``str`` gives the one expression that means it, ``plain`` what JSON and tables hold."""

RankLike = Rank | SupportsIndex | str | Sequence[SupportsIndex]
"""What ``parse`` takes."""

_SIZE = r"[1-9][0-9]{0,17}"
_SIZES = re.compile(rf"[\[(]{_SIZE}(, ?{_SIZE})*,?[\])]|{_SIZE}(-{_SIZE})+")
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
_ENERGY = re.compile(rf"energy:({_NUMBER})")
_BUDGET = re.compile(rf"(adaptive:)?(?:(?P<ratio>{_NUMBER})x|params:(?P<params>{_NUMBER})|macs:(?P<macs>{_NUMBER}))")


def parse(rank: Any) -> Rank:
    """The rank that a value of the configuration, or an argument, means; a ``Rank`` is one already.

    An integer, numpy's too; a list, tuple or ``torch.Size`` of them; or text, in upper or lower case: a size
    ``8``, one for each bond ``4-8`` or ``[4,8]``, ``reference``, ``vbmf``, ``energy:0.9``, or a budget ``10x``,
    ``params:120000``, ``macs:0.2``, and adaptive ones, ``adaptive:10x`` and so on. Raises ``ConfigError`` for anything
    else, in one line.
    """
    if isinstance(rank, Rank):
        return rank
    if isinstance(rank, list | tuple) and rank and all(map(_is_whole, rank)):
        return _of_list(list(map(int, rank)))
    if _is_whole(rank):
        return Size(int(rank))
    said = " ".join(str(rank).split())
    text = said.lower()
    if _SIZES.fullmatch(text):
        return _of_list(list(map(int, re.findall(_SIZE, text))))
    if text in ("reference", "vbmf"):
        return Reference() if text == "reference" else Vbmf()
    share = _ENERGY.fullmatch(text)
    if share is not None:
        return Energy(float(share[1]))
    budget = _BUDGET.fullmatch(text)
    if budget is not None:
        kind, number = next((kind, number) for kind, number in budget.groupdict().items() if number is not None)
        return Budget(kind, float(number), adaptive=budget[1] is not None)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ConfigError(
            f"rank={said} is not a whole number; use for example rank=8, rank=[4,8] for two bonds, rank=reference, a "
            "budget of the whole network: rank=10x, rank=params:120000, rank=macs:0.2, one that is reached while "
            "training: rank=adaptive:10x, or for trained weights rank=vbmf, rank=energy:0.9"
        )
    return Size(int(text))


def reached(rank: Any) -> Any:
    """The plain value of a rank, as ``parse`` takes it, of a network whose cuts are done."""
    found = parse(rank)
    return (replace(found, adaptive=False) if isinstance(found, Budget) else found).plain


def _of_list(sizes: list[int]) -> Size | Sizes:
    return Sizes(tuple(sizes)) if len(sizes) > 1 else Size(sizes[0])


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(value: float) -> str:
    """The shortest text of a number, without a fraction where it has none."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
