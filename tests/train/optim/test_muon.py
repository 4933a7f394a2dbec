"""Muon against torch's own on matrices, AdamW against torch's on the rest, and how cores are unfolded."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case
from torch import nn

from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.models.build import build
from tdcompress.tensor.fitting.initial import orthogonal
from tdcompress.tensor.layout import KERNELS
from tdcompress.train.optim.muon import Muon, unfoldings

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(optimizer_of, shapes, steps=4):
    draw = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    optimizer = optimizer_of(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 9), (9, 4)])
def test_a_matrix_is_learned_as_by_torch(shape, nesterov):
    def ours(parameters):
        optimizer = Muon(parameters, lr=0.02, weight_decay=0.3, nesterov=nesterov)
        optimizer.unfoldings = {parameters[0]: ((), (0,), (1,))}
        return optimizer

    def theirs(parameters):
        options = {"lr": 0.02, "weight_decay": 0.3, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
        return torch.optim.Muon(parameters, **options)

    torch.testing.assert_close(trained(ours, [shape]), trained(theirs, [shape]), rtol=0, atol=1e-3)  # bfloat16


def test_what_is_no_matrix_is_learned_by_adamw():
    options = {"lr": 0.02, "weight_decay": 0.3, "betas": (0.8, 0.9), "eps": 1e-8}
    ours = trained(lambda parameters: Muon(parameters, **options), [(5,), (2, 3)])
    torch.testing.assert_close(
        ours, trained(lambda parameters: torch.optim.AdamW(parameters, **options), [(5,), (2, 3)])
    )


@pytest.mark.parametrize("case", [case for case in CASES if case.kernel == KERNELS[0]], ids=str)
def test_cores_are_unfolded_as_orthogonal_cores_are(case: Case):
    """Orthogonal cores are such matrices: each of the unfolded blocks, wide or tall, has one singular value."""
    layer = case.layer()
    axes = unfoldings(nn.Sequential(layer))
    assert set(axes) == set(layer.tensors())
    for core, value in zip(layer.tensors(), orthogonal(layer.graph, torch.randn(8, 12)), strict=True):
        blocks, rows, columns = axes[core]
        assert sorted((*blocks, *rows, *columns)) == list(range(value.dim()))
        ordered = value.permute(*blocks, *rows, *columns)
        matrices = ordered.flatten(len(blocks) + len(rows)).flatten(len(blocks), -2) if rows else ordered.unsqueeze(-2)
        values = torch.linalg.svdvals(matrices.reshape(-1, *matrices.shape[-2:]))
        torch.testing.assert_close(values, values.max().expand_as(values), rtol=1e-4, atol=1e-4)


def test_first_and_last_weights_are_left_to_adamw():
    model = compress(build(ArchConfig(name="lenet5"), 1, 10, 28), "tt", 4, (1, 28, 28))
    names = {parameter: name for name, parameter in model.named_parameters()}
    held = {names[parameter] for parameter in unfoldings(model)}
    assert held == {name for name in names.values() if ".cores." in name}
    dense = build(ArchConfig(name="lenet5"), 1, 10, 28)
    weights = [name for name, parameter in dense.named_parameters() if parameter.dim() > 1]
    held = {name for name, parameter in dense.named_parameters() if parameter in unfoldings(dense)}
    assert held == set(weights[1:-1])
