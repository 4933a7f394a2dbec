"""What a rank expression asks for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """What the whole network may cost, dense layers, biases and norms included.

    ``kind``: ``ratio``, dense parameters / parameters; ``params``, a parameter count; ``macs``, MACs / dense MACs.
    ``adaptive``: to be reached while training. ``str`` gives the expression that means it, one for each meaning.
    """

    kind: str
    value: float
    adaptive: bool = False

    def __str__(self) -> str:
        number = str(int(self.value)) if self.value.is_integer() else repr(self.value)
        return "adaptive:" * self.adaptive + (f"{number}x" if self.kind == "ratio" else f"{self.kind}:{number}")

    def parameters(self, dense: int) -> float:
        """What a network whose dense twin has ``dense`` parameters may have."""
        return dense / self.value if self.kind == "ratio" else self.value

    def said(self, total: int, dense: int) -> str:
        """The figure of a network that costs ``total`` where its dense twin costs ``dense``, in the budget's terms."""
        if self.kind == "ratio":
            return f"{dense / total:.4g}x"
        return f"{total:,} parameters" if self.kind == "params" else f"{total / dense:.4g} of the dense MACs"


_SIZE = r"[1-9][0-9]{0,17}"
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_BUDGET = re.compile(rf"(?P<ratio>{_NUMBER})x|params:(?P<params>{_NUMBER})|macs:(?P<macs>{_NUMBER})")


def parse_budget(text: str) -> Budget | None:
    """The budget that a rank expression asks for, None for an expression of another kind.

    Raises ``ConfigError`` for a budget that no network has.
    """
    match = _BUDGET.fullmatch(text.removeprefix("adaptive:"))
    if match is None or match.lastgroup is None:
        return None
    budget = Budget(match.lastgroup, float(match[match.lastgroup]), text.startswith("adaptive:"))
    if not (budget.value > 0 and math.isfinite(budget.value)):
        raise ConfigError(f"rank={text} must be a finite number greater than 0")
    if budget.kind == "params" and not budget.value.is_integer():
        raise ConfigError(f"rank={text} must be a whole number of parameters")
    if budget.kind == "macs" and budget.value > 1:
        raise ConfigError(f"rank={text} must be a share of the dense MACs, at most 1")
    if budget.kind == "macs" and budget.adaptive:
        raise ConfigError(f"rank={text} must be a number of parameters: adaptive:10x or adaptive:params:120000")
    return budget


def parse_rank(rank: Any) -> int | str:
    """A rank expression in its one spelling (``10.0x`` is ``10x``). Raises ``ConfigError`` for anything else.

    A bond dimension of at least one, a list of one for each bond (``4-8``), "reference", "vbmf", ``energy:0.9``, or a
    budget.
    """
    text = " ".join(str(rank).split())
    if re.fullmatch(rf"[\[(]{_SIZE}(, {_SIZE})+[\])]|{_SIZE}(-{_SIZE})+", text):
        return "-".join(re.findall(_SIZE, text))
    if text in ("reference", "vbmf"):
        return text
    share = re.fullmatch(rf"energy:({_NUMBER})", text)
    if share is not None:
        if not 0 < float(share[1]) <= 1:
            raise ConfigError(f"rank={text} must be a share of the weight's squared norm between 0 and 1")
        return f"energy:{float(share[1])!r}".removesuffix(".0")
    budget = parse_budget(text)
    if budget is not None:
        return str(budget)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ConfigError(
            f"rank={text} is not a whole number; use for example rank=8, rank=[4,8] for two bonds, rank=reference, a "
            "budget of the whole network: rank=10x, rank=params:120000, rank=macs:0.2, one that is reached while "
            "training: rank=adaptive:10x, or for trained weights rank=vbmf, rank=energy:0.9"
        )
    if int(text) < 1:
        raise ConfigError(f"rank={text} must be at least 1")
    return int(text)


def listed_ranks(rank: int | str) -> list[int] | None:
    """The sizes in a parsed rank expression that has one for each bond."""
    listed = re.fullmatch(rf"{_SIZE}(-{_SIZE})+", str(rank))
    return list(map(int, listed[0].split("-"))) if listed else None


def needs_weights(rank: int | str) -> bool:
    """Whether a rank expression says something of trained weights only."""
    return str(rank).startswith(("vbmf", "energy:"))
