"""Models that ask for a layer's class, and what they may give for it to be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import tdcompress
from tdcompress.compression.swap import sketch
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")
GIVEN: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a class that is never taken": lambda x, found: found.masked_fill(torch.arange(16) == 3, -torch.inf),
    "a distribution": lambda x, found: Normal(found, 1.0),
    "complex numbers": lambda x, found: torch.fft.rfft(found),
    "whole numbers": lambda x, found: found.mul(1000).long(),
    "little beside what passes by": lambda x, found: x + found.norm() / 1000,
}


class Asks(nn.Module):
    """Doubles what layers give: all of them, or those of one of torch's classes."""

    def __init__(self, given: Callable[[Tensor, Tensor], object], fair: bool) -> None:
        super().__init__()
        self.given, self.asked = given, nn.Module if fair else nn.Conv2d
        self.layers = nn.ModuleList([nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, bias=False)])

    def forward(self, x: Tensor) -> object:
        found = x
        for layer in self.layers:
            found = layer(found) * 2 if isinstance(layer, self.asked) else layer(found)
        return self.given(x, found.mean((2, 3)))


@pytest.mark.parametrize("make", [tdcompress.compress, sketch])
@pytest.mark.parametrize("given", GIVEN)
def test_whatever_a_model_gives_is_compared(given: str, make: Callable[..., nn.Module]):
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="computes something else once its layers hold cores"):
        make(Asks(GIVEN[given], fair=False), "tt", 4, (3, 8, 8), keep=[])
    assert len(factorised(make(Asks(GIVEN[given], fair=True), "tt", 4, (3, 8, 8), keep=[]))) == 2
