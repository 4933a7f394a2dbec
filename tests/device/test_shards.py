"""Cores that several processes share, sharded along their first size as torch's FSDP2 does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed
from cases import CASES, Case
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed import fake_pg  # noqa: F401  # gives torch the backend "fake"

WORLD = 5


@pytest.fixture(scope="module", autouse=True)
def one_of_several() -> Iterator[None]:
    """The first of processes of which the others are not there: nothing here needs their parts."""
    torch.distributed.init_process_group("fake", rank=0, world_size=WORLD)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shards_change_their_type_and_place(case: Case):
    layer = case.layer()
    whole = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    assert any(len(value) % WORLD for value in whole.values())  # shards of unequal size
    fully_shard(layer, mesh=torch.distributed.init_device_mesh("cpu", (WORLD,)))
    for moved in (layer.float(), layer.to(memory_format=torch.channels_last), layer.double()):
        for name, parameter in moved.named_parameters():
            assert isinstance(parameter, DTensor) and parameter.shape == whole[name].shape
            torch.testing.assert_close(
                parameter.to_local(), whole[name].chunk(WORLD)[0], rtol=1e-6, atol=1e-7, check_dtype=False
            )
    layer.to_empty(device="cpu")
    assert {name: parameter.shape for name, parameter in layer.named_parameters()} == {
        name: value.shape for name, value in whole.items()
    }
