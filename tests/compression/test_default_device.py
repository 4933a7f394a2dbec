"""Nothing is made on torch's default device, which users set: a model's tensors say where they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cases import FACTORISED
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import tdcompress
from tdcompress.layers.kinds import factorised
from tdcompress.models.dropout import Dropout
from tdcompress.tensor.fitting.initial import INITS

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def another() -> Iterator[None]:
    """A default device whose tensors have no values, so that any use of one is an error."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.Flatten(), nn.Linear(2048, 10)
    )


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("method", FACTORISED)
def test_layers_are_swapped_where_they_are(method: str, init: str, tmp_path: Path):
    expected, model, file = convolutional(), convolutional(), tmp_path / "model.safetensors"
    torch.manual_seed(1)
    rank = "3x" if init == "orthogonal" else 3  # a budget's search is the same for all
    tdcompress.compress(expected, method, rank, (3, 8, 8), init=init)
    torch.manual_seed(1)
    twin, x = convolutional(), torch.randn(2, 3, 8, 8)
    torch.manual_seed(1)
    with another():
        tdcompress.compress(model, method, rank, (3, 8, 8), init=init)
        assert str(tdcompress.report(model))
        tdcompress.save(model, file)
        again = tdcompress.load(file, twin)
        folded = tdcompress.fold(model, (3, 8, 8))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(again(x), model(x))
    torch.testing.assert_close(folded(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", FACTORISED)
def test_weights_are_fitted_to_data_and_switched_in_training(method: str):
    model, given = convolutional(), [torch.randn(40, 3, 8, 8)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with another():
        tdcompress.compress(copy.deepcopy(model), method, "3x", (3, 8, 8), data=given)
        tdcompress.switch(model, optimizer, method, "3x", (3, 8, 8))
    assert factorised(model)


@pytest.mark.parametrize("plan", ["model", "contract"])
def test_sequences(plan: str):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.LSTM(32, 64, bidirectional=True)), torch.randn(7, 3, 32)
    tdcompress.compress(model, "tt", 8, example_inputs=(x,), keep=[], plan=plan)
    packed = pack_padded_sequence(x, torch.tensor([7, 5, 2]))
    expected = model(packed)[0].data
    with another():
        found = model(packed)[0].data
    assert torch.equal(found, expected)


def test_dropout():
    x = torch.ones(5, 7)
    with another():
        assert Dropout(0.5)(x).device == x.device
