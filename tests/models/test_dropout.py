"""Dropout against what its definition says, and against torch's."""

import pytest
import torch
from torch import nn

from tdcompress.models.dropout import Dropout

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("p", [0.25, 0.5, 0.1, 1 / 3, 0.999])
def test_an_entry_is_dropped_with_probability_p_and_scaled_otherwise(p):
    torch.manual_seed(0)
    count = 1_000_003
    y = Dropout(p)(torch.ones(count))
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=2**-16 / (1 - p))


def test_the_resolution_is_two_to_the_minus_sixteen():
    torch.manual_seed(0)
    y = Dropout(2**-16)(torch.ones(8 * 10**6))
    assert 60 < (y == 0).sum() < 190  # 122 expected
    assert y.max().item() == pytest.approx(1 / (1 - 2**-16), rel=1e-7)


def test_entries_are_independent_along_every_axis():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(64, 32, 20, 20)) != 0).double() * 2 - 1
    for shift in (1, 2, 3, 4, 8):
        for axis in range(4):
            assert (kept * kept.roll(shift, axis)).mean().abs() < 4 / kept.numel() ** 0.5


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_evaluation_and_the_ends_of_the_range_are_torchs(p):
    x = torch.randn(1000)
    assert torch.equal(Dropout(p).eval()(x), x)
    if p in (0, 1):
        assert torch.equal(Dropout(p)(x), nn.Dropout(p)(x))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Dropout(1 + p + 0.1)


LAYOUTS = {
    "channels_last": lambda: torch.randn(5, 3, 4, 6).to(memory_format=torch.channels_last),
    "contiguous": lambda: torch.randn(5, 3, 4, 6),
    "transposed": lambda: torch.randn(7, 9).t(),
    "gaps": lambda: torch.randn(10, 9)[::2, 1:8],
    "expanded": lambda: torch.ones(1, 40).expand(30, 40),
    "number": lambda: torch.randn(()),
    "empty": lambda: torch.randn(0, 4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_gradients_and_layout(layout, dtype):
    torch.manual_seed(1)
    x = LAYOUTS[layout]().to(dtype).requires_grad_()
    given = x.detach().clone()
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.stride() == nn.Dropout(0.5)(x).stride()
    assert ((y == 0) | (y == 2 * x)).all()
    assert torch.equal(x.grad, torch.where(y == 0, 0, 2).to(dtype))
    assert torch.equal(x, given)


def test_rows_of_an_expanded_input_are_dropped_apart():
    torch.manual_seed(0)
    y = Dropout(0.5)(torch.ones(1, 40).expand(30, 40))
    assert len(y.unique(dim=0)) == 30


def test_draws_follow_the_global_generator():
    layer, x = Dropout(0.4), torch.ones(50, 7)
    torch.manual_seed(3)
    first, state, second = layer(x), torch.get_rng_state(), layer(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), second)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)


def test_a_transform_draws_as_torchs_own():
    x, layer = torch.ones(2, 200), Dropout(0.5)
    different = torch.vmap(layer, randomness="different")(x)
    same = torch.vmap(layer, in_dims=(0,), randomness="same")(x)
    assert not torch.equal(different[0], different[1])
    assert torch.equal(same[0], same[1])
