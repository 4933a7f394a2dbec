"""Plans are measured, kept and carried over, and change no number."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from cases import FACTORISED
from networks import SHAPE, Net
from torch import Tensor, nn

from tdcompress.compression.survey import plans as planning
from tdcompress.compression.survey.plans import plans, tune, use_plans
from tdcompress.compression.swap import compress
from tdcompress.layers.base import Factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("format", FACTORISED)
def test_a_tuned_model_computes_the_same(format: str):
    model, x = compress(Net(), format, 4, SHAPE, plan="measure"), torch.randn(4, *SHAPE)
    model.eval()
    expected, state, random = model(x), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.train()
    tune(model, x)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    layers = [layer for layer in model.modules() if isinstance(layer, Factorised)]
    assert all(layer.plan.path in layer.candidates for layer in layers)
    torch.testing.assert_close(model.eval()(x), expected, rtol=1e-4, atol=1e-5)


def test_tuning_keeps_the_fastest(monkeypatch: pytest.MonkeyPatch):
    model = compress(Net(), "tt", 4, SHAPE, plan="measure", layout="channels")
    layer = model.body[0].conv
    slow = {path: 1.0 + k for k, path in enumerate(reversed(layer.candidates))}  # the last candidate is the fastest
    monkeypatch.setattr(planning, "seconds", lambda step, device: slow.get(step.args[0].plan.path, 1.0))
    first = model.hidden.plan.path
    tune(model, torch.randn(2, *SHAPE))
    assert layer.plan.path == layer.candidates[-1]
    assert model.hidden.plan.path == first  # all alike: the model's choice stays


def test_plans_are_carried_over():
    model, other = (compress(Net(), "tucker", 4, SHAPE, plan=plan) for plan in ("dense", "chain"))
    assert plans(model) != plans(other)
    use_plans(other, json.loads(json.dumps(plans(model))))
    assert plans(model) == plans(other)
    assert other.hidden.plan.text == model.hidden.plan.text


def test_tuning_what_is_frozen_without_gradients_and_of_several_inputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.table = nn.Linear(64, 64), nn.Linear(64, 64), nn.Embedding(64, 64)

        def forward(self, x: Tensor, rows: Tensor) -> Tensor:
            return self.a(x) + self.b(self.table(rows))

    batch = (torch.randn(4, 64), torch.arange(4))
    model = Two()
    model.a.bias.requires_grad_(False)
    model.b.weight.requires_grad_(False)
    compress(model, "tt", 4, example_inputs=batch, keep=[], plan="measure")
    calls: list[nn.Module] = []
    model.a.register_forward_hook(lambda layer, *_: calls.append(layer))
    with torch.no_grad():
        tune(model, batch)
    assert len(calls) == 1  # by the model, to see what it is given
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("batch", [torch.randn(2, 33), 5], ids=["shape", "number"])
def test_tuning_with_what_the_model_cannot_take(batch: object):
    model = compress(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10)), "tt", 4, (64,), plan="measure")
    with pytest.raises(ConfigError, match="the model cannot take the batch"):
        tune(model, batch)
    with torch.inference_mode():
        tune(model, torch.randn(2, 64))
