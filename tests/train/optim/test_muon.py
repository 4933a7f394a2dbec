"""Muon against torch's own on matrices, AdamW against torch's on the rest, and how cores are unfolded."""

from __future__ import annotations

import pytest
import torch
from cases import FACTORISED
from torch import nn

from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.models.build import build
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
        return Muon(parameters, lr=0.02, weight_decay=0.3, nesterov=nesterov)

    def theirs(parameters):
        options = {"lr": 0.02, "weight_decay": 0.3, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
        return torch.optim.Muon(parameters, **options)

    torch.testing.assert_close(trained(ours, [shape]), trained(theirs, [shape]), rtol=0, atol=1e-3)  # bfloat16


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"momentum": 1.0}, {"betas": (0.9, 2.0)}, {"steps": 0}, {"eps": -1.0}])
def test_what_it_cannot_take(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Muon([nn.Parameter(torch.ones(2))], **wrong)


def test_what_is_no_matrix_is_learned_by_adamw():
    options = {"lr": 0.02, "weight_decay": 0.3, "betas": (0.8, 0.9), "eps": 1e-8}
    ours = trained(lambda parameters: Muon(parameters, unfoldings={}, **options), [(5,), (2, 3)])
    torch.testing.assert_close(
        ours, trained(lambda parameters: torch.optim.AdamW(parameters, **options), [(5,), (2, 3)])
    )


# Of each core of a convolution its two sides as a matrix, and behind a bar what numbers the blocks, by their indices.
BY_HAND = {
    "cp": ["i,r", "kh kw,r", "o,r"],
    "tt": ["i,r1", "r1,kh kw r2", "r2,o"],
    "tr": ["i,r0 r1", "r1,kh kw r2", "r2 o,r0"],
    "ht": ["i,r_l", "o,r_r", "r_l,kh kw r_r"],
    "tucker": ["i,r_i", "o,r_o", "r_i,r_o kh kw"],
    "btt": ["i2,r|i1 o1", "r,o2 kh kw|i1 o1"],
}


@pytest.mark.parametrize("format", sorted(BY_HAND))
def test_how_cores_are_matrices(format: str):
    assert set(BY_HAND) == set(FACTORISED)
    layout = "split" if format == "btt" else "channels"
    model = compress(nn.Sequential(nn.Conv2d(8, 12, (3, 2))), format, 3, (8, 7, 6), layout=layout, keep=[])
    layer = model[0]
    axes = unfoldings(model)
    for core, parameter, said in zip(layer.graph.cores, layer.tensors(), BY_HAND[format], strict=True):
        blocks, *sides = ({core.indices[axis] for axis in part} for part in axes[parameter])
        matrix, _, shared = said.partition("|")
        assert blocks == set(shared.split())
        assert sorted(map(sorted, sides)) == sorted(sorted(side.split()) for side in matrix.split(","))


def test_weights_that_are_no_single_matrix_are_left_to_adamw():
    model = nn.Sequential(nn.Linear(4, 4), nn.Embedding(5, 4), nn.LSTM(4, 4), nn.Conv1d(4, 4, 3), nn.Linear(4, 2))
    assert list(unfoldings(model).items()) == [(model[3].weight, ((), (0,), (1, 2)))]


def test_first_and_last_weights_are_left_to_adamw():
    model = compress(build(ArchConfig(name="lenet5"), 1, 10, 28), "tt", 4, (1, 28, 28))
    names = {parameter: name for name, parameter in model.named_parameters()}
    held = {names[parameter] for parameter in unfoldings(model)}
    assert held == {name for name in names.values() if ".cores." in name}
    dense = build(ArchConfig(name="lenet5"), 1, 10, 28)
    weights = [name for name, parameter in dense.named_parameters() if parameter.dim() > 1]
    held = {name for name, parameter in dense.named_parameters() if parameter in unfoldings(dense)}
    assert held == set(weights[1:-1])
