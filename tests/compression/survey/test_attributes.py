"""Copies of models, and models after a pass."""

from __future__ import annotations

import copy
from collections import deque

import pytest
import torch
from torch import Tensor, nn

import tdcompress
from tdcompress.compression.swap import sketch


class Remembers(nn.Module):
    """Keeps, in eval mode, what it computes of a parameter, under two names: LeViT and others of timm do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 32), nn.Linear(32, 32)
        self.biases, self.found, self.same = nn.Parameter(torch.randn(4)), {}, {}

    def forward(self, x: Tensor) -> Tensor:
        if self.training or "cpu" not in self.found:
            self.found["cpu"] = self.same["cpu"] = self.biases.repeat(8)
        return self.last(self.first(x).relu() + self.found["cpu"] + self.same["cpu"])


def test_a_model_that_keeps_results_with_their_gradients():
    torch.manual_seed(0)
    x, model = torch.randn(3, 32), Remembers().eval()
    model(x).sum().backward()
    sketched = sketch(model, "tt", 4, example_inputs=x, keep=[])
    assert "TT" in str(tdcompress.report(sketched)).upper()
    model = tdcompress.compress(model, "tt", 4, example_inputs=x, keep=[])
    expected = model(x)
    folded = tdcompress.fold(model, example_inputs=x)
    torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-5)
    assert folded.found["cpu"] is folded.same["cpu"] is not model.found["cpu"]
    with torch.no_grad():
        folded.biases.add_(1.0)
    folded.train()(x).sum().backward()
    assert folded.biases.grad is not None and torch.equal(model(x), expected)


class Merges(nn.Linear):
    """Adds its adapter to the weight in evaluation mode and takes it off again, as loralib's layers do."""

    def __init__(self) -> None:
        super().__init__(64, 64)
        self.adapter, self.merged = nn.Parameter(torch.randn(64, 64)), False

    def train(self, mode: bool = True) -> Merges:
        super().train(mode)
        if self.merged == mode:
            self.weight.data += -self.adapter if mode else self.adapter
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight if self.merged else self.weight + self.adapter, self.bias)


class Notes(nn.Module):
    """Notes passes in a tensor, in containers and in buffers: one whose entries are one number, one that it resizes."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.last, self.counts = torch.zeros(64), deque([0], maxlen=3), {"of": [0]}
        self.register_buffer("gain", torch.ones(1, 1).expand(1, 64))
        self.register_buffer("largest", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.memory.mul_(0.9).add_(1.0)
        self.last.append(1)
        self.counts["of"][0] += 1
        self.largest.resize_(1).fill_(9.0)
        return x * self.gain


@pytest.mark.parametrize("part", [Merges, Notes])
def test_nothing_that_a_pass_leaves_in_a_model_stays(part):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), part(), nn.Linear(64, 64), nn.Linear(64, 10))
    own = model[1]
    state = {name: value.clone() for name, value in own.state_dict().items()}
    noted = copy.deepcopy({name: value for name, value in vars(own).items() if not name.startswith("_")})
    tdcompress.count(model, (64,))
    tdcompress.compress(model, "tt", 4, (64,), init="fit", data=[torch.randn(8, 64)])
    assert model.training and own.state_dict().keys() == state.keys()
    torch.testing.assert_close(dict(own.state_dict()), state, rtol=0, atol=0)
    now = {name: getattr(own, name) for name in noted}
    torch.testing.assert_close(now.pop("memory", None), noted.pop("memory", None))
    assert now == noted
