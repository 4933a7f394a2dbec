"""The learning rate of each core: the law, the optimizers it goes with, and what schedules see of it."""

from __future__ import annotations

import math

import pytest
import torch
from cases import CASES, Case, einsum_dense
from torch import nn

from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig, MethodConfig, OptimConfig, TrainConfig
from tdcompress.layers.kinds import factorised
from tdcompress.models.build import build
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.fitting.initial import orthogonal
from tdcompress.tensor.layout import KERNELS
from tdcompress.train.optim.groups import Groups, groups_by_rate
from tdcompress.train.optim.muon import Muon
from tdcompress.train.optim.rates import MULTIPLES, core_multiples, follow_multiples, gradient_degree

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("case", [case for case in CASES if case.kernel == KERNELS[0]], ids=str)
def test_a_step_of_each_core_changes_the_weight_as_much(case: Case, degree: int):
    """The root mean square of W's change, over draws of cores and of dL/dW: a dense weight's / number of cores."""
    layer = case.layer(rank=4)
    cores, draw = layer.tensors(), torch.Generator().manual_seed(0)
    shape = einsum_dense(layer.graph, cores).shape
    change, dense = torch.zeros(len(cores), dtype=torch.float64), 0.0
    for _ in range(25):
        for core, value in zip(cores, orthogonal(layer.graph, torch.randn(shape, generator=draw), draw), strict=True):
            core.data = value.double()
        gradient = torch.randn(shape, generator=draw, dtype=torch.float64)
        weight = einsum_dense(layer.graph, cores)
        parts = torch.autograd.grad((weight * gradient).sum(), cores)
        multiples = core_multiples(nn.Sequential(layer), degree)
        for k, (core, part) in enumerate(zip(cores, parts, strict=True)):
            moved = [value.detach() for value in cores]
            moved[k] = moved[k] + multiples[core] * (part if degree else part.sign())
            change[k] += (einsum_dense(layer.graph, moved) - weight.detach()).square().sum()
        dense += float((gradient if degree else gradient.sign()).square().sum())
    shares = (change / dense).sqrt() * len(cores)
    assert shares.min() > 0.7 and shares.max() < 1.9  # rounded to powers of two


@pytest.mark.parametrize(
    ("optimizer", "degree"),
    [
        (lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1), 1),
        (lambda params: torch.optim.AdamW(params, lr=0.1), 0),
        (lambda params: torch.optim.Adagrad(params, lr=0.1), 0),
        (lambda params: torch.optim.RMSprop(params, lr=0.1), 0),
        (lambda params: torch.optim.RAdam(params, lr=0.1), 0),  # whose first steps are those of SGD
        (lambda params: torch.optim.Adam(params, lr=0.1), 0),
        (lambda params: Muon(params, lr=0.1), 0),
    ],
)
def test_how_a_step_follows_the_gradient(optimizer, degree):
    assert gradient_degree(optimizer) == degree


def test_optimizers_that_no_rule_is_known_for():
    class Cubed(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data -= parameter.grad**3

    for optimizer in (
        lambda params: Cubed(params, lr=0.1),
        lambda params: torch.optim.LBFGS(params),
        lambda params: torch.optim.Adafactor(params, lr=0.1),  # in proportion to the parameter
        lambda params: torch.optim.ASGD(params, lr=0.1),  # which decays by another name
        lambda params: torch.optim.Adam(params, lr=0.1, weight_decay=0.1),  # whose decay is a gradient like others
    ):
        with pytest.raises(ConfigError, match=r"use optim\.core_lr=same"):
            gradient_degree(optimizer)


def test_parameters_that_do_not_decay():
    model = compress(build(ArchConfig(name="lenet"), 1, 10, 28), "ht", 4, (1, 28, 28))
    config = TrainConfig(
        method=MethodConfig("ht", decay="frobenius"),
        optim=OptimConfig({"_target_": "torch.optim.SGD", "weight_decay": 0.01}, core_lr="balanced"),
    )
    optimizer = Groups(config, None, torch.device("cpu")).optimizer(model)
    decays = {core: group["weight_decay"] for group in optimizer.param_groups for core in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    cores = {core for layer in factorised(model).values() for core in layer.tensors()}
    assert {decays[core] for core in cores} == {0.0}
    assert {decays[parameter] for parameter in model.parameters() if parameter not in cores} == {0.01}


@pytest.mark.parametrize("core_lr", ["same", "balanced"])
def test_a_decay_that_would_not_be_carried_out_is_refused(core_lr: str):
    model = compress(build(ArchConfig(name="lenet"), 1, 10, 28), "ht", 4, (1, 28, 28))

    def refused(decay: str, target: str, said: str, **values: float) -> None:
        optim = OptimConfig({"_target_": target, **values}, core_lr=core_lr)
        config = TrainConfig(method=MethodConfig("ht", decay=decay), optim=optim)
        with pytest.raises(ConfigError, match=said):
            Groups(config, None, torch.device("cpu")).optimizer(model)

    for target in ("torch.optim.AdamW", "tdcompress.train.optim.muon.Muon"):
        refused("frobenius", target, "method.decay=frobenius is a part of the gradient", weight_decay=0.1)
    for decay in ("frobenius", "scaled"):
        refused(decay, "torch.optim.SGD", f"method.decay={decay} changes nothing where", weight_decay=0.0)
    optim = OptimConfig({"_target_": "torch.optim.AdamW"})
    dense = TrainConfig(method=MethodConfig("dense", decay="frobenius"), optim=optim)
    assert Groups(dense, None, torch.device("cpu")).optimizer(build(ArchConfig(name="lenet"), 1, 10, 28))


def test_a_dense_network_has_one_group():
    config = TrainConfig(optim=OptimConfig({"_target_": "torch.optim.AdamW"}, core_lr="balanced"))
    optimizer = Groups(config, None, torch.device("cpu")).optimizer(build(ArchConfig(name="lenet"), 1, 10, 28))
    assert len(optimizer.param_groups) == 1


def test_schedules_see_the_rate_of_the_network_and_decay_stays_what_it_was():
    cores = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
    model = nn.Module()
    model.bias, model.cores = nn.Parameter(torch.ones(1)), nn.ParameterList(cores)
    groups = groups_by_rate(model, {"cores.0": 4.0, "cores.1": 0.5}, weight_decay=0.1)
    assert len(groups) == 1 + len(MULTIPLES)
    optimizer = torch.optim.SGD(groups, lr=0.01)
    follow_multiples(optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=10)
    rate = optimizer.param_groups[0]["lr"]
    for parameter in model.parameters():
        parameter.grad = torch.full((1,), 3.0)
    optimizer.step()
    assert {group["lr"] for group in optimizer.param_groups} == {rate}
    decayed = 1 - rate * 0.1
    assert model.bias.item() == pytest.approx(decayed - rate * 3)
    assert cores[0].item() == pytest.approx(decayed - 4 * rate * 3)
    assert cores[1].item() == pytest.approx(decayed - 0.5 * rate * 3)
    schedule.step()
    assert len({group["lr"] for group in optimizer.param_groups}) == 1
    assert not math.isclose(optimizer.param_groups[0]["lr"], rate)
