"""What the loss feels of a change of each layer, as an optimizer remembers it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tdcompress
from tdcompress.train.optim.muon import Muon
from tdcompress.train.optim.sensitivity import sensitivities


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3))
    return tdcompress.compress(model, "tt", 3, (12,), layout="matrix", keep=["2"])


def steps(model, optimizer, count=30):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(8, 12, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.randint(3, (8,), generator=generator)).backward()
        optimizer.step()


@pytest.mark.parametrize(("key", "power"), [("momentum_buffer", 2), ("exp_avg_sq", 1)])
def test_counted_by_hand(key, power):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    by_hand = {}
    for name in ("0", "1"):
        felt = []
        for core in model.get_submodule(name).tensors():
            held = torch.rand(core.shape) + float(name)
            optimizer.state[core] = {"step": torch.tensor(3.0), key: held}
            felt.append(float((core.detach() ** 2).sum()) * float((held**power).sum()) / core.numel())
        by_hand[name] = sum(felt) / 2
    assert sensitivities(model, optimizer) == pytest.approx(by_hand)


class Shortcut(nn.Module):
    """Two layers side by side, of which the second has a hundredth of the say."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, x):
        first, second, last = self.layers
        return last(first(x) + 0.01 * second(x))


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-5),
    "Muon": lambda parameters: Muon(parameters, lr=1e-5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_layer_that_the_loss_hangs_on_is_told_from_one_that_it_does_not(name):
    model = Shortcut()
    optimizer = OPTIMIZERS[name](model.parameters())
    steps(model, optimizer)
    felt = sensitivities(model, optimizer)
    assert felt["layers.0"] > 1e3 * felt["layers.1"] > 0


def test_an_optimizer_without_a_memory_knows_nothing():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps(model, optimizer, count=2)
    assert sensitivities(model, optimizer) == {}


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_gradients_that_say_nothing_are_left_out(value):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for name, held in (("0", value), ("1", 1.0)):
        for core in model.get_submodule(name).tensors():
            optimizer.state[core] = {"momentum_buffer": torch.full_like(core, held)}
    assert set(sensitivities(model, optimizer)) == {"1"}
