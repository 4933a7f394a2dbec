"""Copies of models."""

from __future__ import annotations

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
