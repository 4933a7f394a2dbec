"""Inputs and masks of attention that do not go with each other are refused where torch's own layer refuses them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tdcompress
from tdcompress.tensor.contraction.cost import Rates

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, STEPS, KEYS, WIDTH, HEADS = 2, 7, 5, 16, 4
GIVEN: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "padding": {"key_padding_mask": (BATCH, KEYS)},
    "padding of fewer keys": {"key_padding_mask": (BATCH, KEYS - 1)},
    "padding of more keys": {"key_padding_mask": (BATCH, KEYS + 1)},
    "padding of one input": {"key_padding_mask": (1, KEYS)},
    "a mask": {"attn_mask": (STEPS, KEYS)},
    "a mask for each head": {"attn_mask": (BATCH * HEADS, STEPS, KEYS)},
    "a mask of fewer keys": {"attn_mask": (STEPS, KEYS - 1)},
    "a mask of more keys": {"attn_mask": (STEPS, KEYS + 1)},
    "a mask of one query": {"attn_mask": (1, KEYS)},
    "a mask of one head": {"attn_mask": (1, STEPS, KEYS)},
    "keys and values of one input": {"key": (1, KEYS, WIDTH), "value": (1, KEYS, WIDTH)},
    "keys of one input": {"key": (1, KEYS, WIDTH)},
    "values of fewer steps": {"value": (BATCH, KEYS - 1, WIDTH)},
}


class Attends(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **settings)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **masks: Tensor) -> Tensor:
        found: Tensor = self.attention(query, key, value, **masks)[0]
        return found


@pytest.mark.parametrize("settings", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("name", GIVEN)
def test_as_torch(name: str, settings: dict[str, Any]):
    torch.manual_seed(0)
    shapes = {"query": (BATCH, STEPS, WIDTH), "key": (BATCH, KEYS, WIDTH), "value": (BATCH, KEYS, WIDTH), **GIVEN[name]}
    given = {key: torch.randn(shape) > 1 if "mask" in key else torch.randn(shape) for key, shape in shapes.items()}
    usual = {key: torch.randn(BATCH, KEYS, WIDTH) for key in ("query", "key", "value")}
    ours = tdcompress.compress(Attends(**settings), "tt", 3, example_inputs=usual, keep=[], rates=Rates()).eval()
    torchs = tdcompress.fold(ours, example_inputs=usual, plan="dense").eval()
    assert type(torchs.attention) is nn.MultiheadAttention
    if name in ("nothing else", "padding", "a mask", "a mask for each head"):
        torch.testing.assert_close(ours(**given), torchs(**given))
    else:
        with pytest.raises((RuntimeError, AssertionError)):
            torchs(**given)
        with pytest.raises(RuntimeError, match=r"which do not go together|_mask is "):
            ours(**given)
