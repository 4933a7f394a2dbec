"""Weight decay of cores and of weights, and the sign of a degenerate sum."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, Case, einsum_dense, einsum_weight
from torch import nn
from training import config_in

from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.data.datasets import DeviceDataset
from tdcompress.layers.base import Factorised
from tdcompress.models.build import build
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.interrupt import StopSignals
from tdcompress.train.learner import Learner
from tdcompress.train.optim.build import build_scheduler, weight_decay
from tdcompress.train.optim.groups import frobenius_penalty, parameter_groups
from tdcompress.train.stability import degeneracy

pytestmark = pytest.mark.usefixtures("one_thread")


def lenet(format: str = "tt", rank: int = 4, layout: str | None = "matrix") -> nn.Module:
    return compress(build(ArchConfig(name="lenet"), 1, 10, 28), format, rank, (1, 28, 28), layout=layout)


def decays(model: nn.Module, decay: str, weight_decay: float = 0.01) -> dict[str, float]:
    """The weight decay that each parameter gets, every one of them once."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, decay, weight_decay)
    found = {names[p]: group.get("weight_decay", weight_decay) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    return found


def test_what_each_decay_does_to_which_parameter():
    model = lenet()  # matrices of rank 4: conv2 4 (288 + 64) of 18,432 entries, fc1 4 (9216 + 128) of 1,179,648
    cores = {name for name in dict(model.named_parameters()) if ".cores." in name}
    assert len(cores) == 4
    assert set(decays(model, "factors").values()) == {0.01}
    scaled, frobenius = decays(model, "scaled"), decays(model, "frobenius")
    assert {name for name, value in frobenius.items() if value == 0} == cores
    assert {name for name, value in scaled.items() if value != 0.01} == cores
    assert scaled["conv2.cores.core1"] == pytest.approx(0.01 * 4 * 352 / 18_432)
    assert scaled["fc1.cores.core2"] == pytest.approx(0.01 * 4 * 9344 / 1_179_648)
    for decay in ("factors", "scaled", "frobenius"):
        assert set(decays(model, decay, 0.0).values()) == {0.0}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"_target_": "torch.optim.SGD", "weight_decay": 5e-4}, 5e-4),
        ({"_target_": "torch.optim.SGD"}, 0.0),
        ({"_target_": "torch.optim.AdamW"}, 0.01),  # its default
        ({"_target_": "torch.optim.Rprop"}, 0.0),  # has none
    ],
)
def test_the_decay_that_there_is(options: dict, expected: float):
    assert weight_decay(TrainConfig(optim=OptimConfig(options))) == expected


def test_what_no_optimizer_or_schedule_can_use_is_told():
    optimizer = {"_target_": "torch.optim.SGD", "weight_decay": "much"}
    with pytest.raises(ConfigError, match="weight_decay=much is not a number"):
        weight_decay(TrainConfig(optim=OptimConfig(optimizer)))
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}
    config = TrainConfig(optim=OptimConfig({"_target_": "torch.optim.SGD"}, plateau, interval="step"))
    with pytest.raises(ConfigError, match="interval=epoch"):
        build_scheduler(config, torch.optim.SGD([nn.Parameter(torch.zeros(1))]), 3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_penalty_is_the_weights_own_decay(case: Case):
    layer = case.layer()
    parameters = layer.tensors()
    found = torch.autograd.grad(frobenius_penalty(nn.Sequential(layer), 0.3), parameters)
    dense = einsum_dense(layer.graph, parameters)
    expected = torch.autograd.grad(dense, parameters, 0.3 * dense.detach())  # chained with dW = 0.3 W
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_penalty_of_a_model_counts_every_layer():
    model = lenet("tr", 3, None)
    layers = [layer for layer in model.modules() if isinstance(layer, Factorised)]
    expected = sum(layer.to_dense().detach().square().sum().item() for layer in layers)
    assert frobenius_penalty(model, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_degeneracy_by_hand():
    layer = Case("cp", "channels", "merged", "linear").layer(2)
    first, second = layer.tensors()
    with torch.no_grad():
        # Components of norm 5 and 4 at right angles, then two of norm 5 that all but cancel.
        first.zero_(), second.zero_()
        first[0, 0], second[0, 0], first[1, 1], second[1, 1] = 5.0, 1.0, 2.0, 2.0
        bond = layer.graph.carriers["r"]
        assert len(bond) == 2  # a bond between two cores is no hyperedge
        assert math.isnan(degeneracy(nn.Sequential(layer)))
    layer = Case("cp", "channels", "merged", "conv").layer(2)
    with torch.no_grad():
        for core in layer.tensors():
            core.zero_()
            core.view(-1, 2)[0] = torch.tensor([1.0, 1.0])
        first = layer.tensors()[0]
        first.view(-1, 2)[0] = torch.tensor([3.0, 0.0])
        first.view(-1, 2)[1] = torch.tensor([0.0, 4.0])
        assert degeneracy(nn.Sequential(layer)) == pytest.approx(4 / 5)
        first.view(-1, 2)[:2] = torch.tensor([[5.0, -5.0], [0.1, 0.0]])
        assert degeneracy(nn.Sequential(layer)) == pytest.approx(math.hypot(5, 0.1) / 0.1)
    assert math.isnan(degeneracy(lenet("tt")))


@pytest.mark.parametrize("decay", ["factors", "scaled", "frobenius"])
def test_a_step_of_a_training_decays_as_was_asked(tmp_path, decay):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Linear(20, 3))
    model = compress(layers, "tt", 4, (1, 6, 6), layout="matrix")
    optim = OptimConfig({"_target_": "torch.optim.SGD", "weight_decay": 0.5})
    asked = {"batch_size": 8, "precision": "fp32", "lr": 0.1}
    config = config_in(tmp_path, method=MethodConfig("tt", decay=decay), optim=optim, **asked)
    images, labels = torch.randint(256, (8, 6, 6, 1), dtype=torch.uint8), torch.arange(8) % 3
    data = DeviceDataset(images, labels, torch.device("cpu"), torch.zeros(1), torch.full((1,), 255.0))

    parameters, cores = list(model.parameters()), model[1].tensors()
    loss = F.cross_entropy(model(images.permute(0, 3, 1, 2).float() / 255), labels)
    share = {"factors": 1.0, "scaled": 4 * (36 + 20) / (36 * 20), "frobenius": 0.0}[decay]
    for parameter in parameters:
        held = any(parameter is core for core in cores)
        loss = loss + 0.5 / 2 * (share if held else 1.0) * parameter.square().sum()
    if decay == "frobenius":
        loss = loss + 0.5 / 2 * einsum_weight(model[1]).square().sum()
    gradients = torch.autograd.grad(loss, parameters)
    wanted = [p.detach() - 0.1 * gradient for p, gradient in zip(parameters, gradients, strict=True)]
    with StopSignals() as stop:
        Learner(config, model, 1, torch.device("cpu")).train(data, stop)
    for found, expected in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6)
