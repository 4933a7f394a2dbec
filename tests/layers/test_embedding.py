"""Embeddings held as cores, against torch's: values, gradients, counts, and that no table is built."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import FACTORISED, WAYS, Largest, einsum_weight, layout_of
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.embedding import FactorisedEmbedding
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, DIM = 97, 19  # of which neither splits


class Tokens(nn.Module):
    """Integers from what a trace gives."""

    def forward(self, x: Tensor) -> Tensor:
        return x.long()


def compressed(table: nn.Module, format: str = "tt", rank: object = 3, **settings: object) -> nn.Module:
    settings = {"allow_larger": True, "keep": [], "rates": Rates(), **settings}
    return tdcompress.compress(nn.Sequential(Tokens(), table), format, rank, (5,), **settings)


def held(table: nn.Embedding, format: str, layout: str, rank: object = 3, **settings: object) -> FactorisedEmbedding:
    layer = compressed(table, format, rank, layout=layout, **settings)[1]
    assert isinstance(layer, FactorisedEmbedding)
    return layer


def tokens(*shape: int) -> Tensor:
    return torch.randint(ROWS, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", WAYS, ids="-".join)
def test_values_and_gradients(case: tuple[str, str]):
    x = tokens(4, 7)
    for plan in ("model", "chain", "dense"):
        layer = held(nn.Embedding(ROWS, DIM), *case, plan=plan).double()
        weight = einsum_weight(layer)
        found, wanted = layer(x), F.embedding(x, weight)
        assert found.is_contiguous()
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        probe = torch.randn_like(wanted)
        for a, b in zip(
            torch.autograd.grad((found * probe).sum(), layer.tensors()),
            torch.autograd.grad((wanted * probe).sum(), layer.tensors()),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            torch.testing.assert_close(layer.eval()(x), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", WAYS, ids="-".join)
def test_a_trained_table_is_kept_at_full_rank_and_folded(case: tuple[str, str]):
    table = nn.Embedding(ROWS, DIM)
    wanted = table.weight.detach().clone()
    layer = held(table, *case, rank=10**6, init="fit")
    assert (layer.weight - wanted).norm() < 2e-4 * wanted.norm()
    model = nn.Sequential(Tokens(), layer)
    for keep_cores in (False, True):
        folded = tdcompress.fold(model, (5,), keep_cores=keep_cores, rates=Rates())
        assert isinstance(folded[1], nn.Embedding)
        torch.testing.assert_close(folded[1](tokens(9)), layer(tokens(9)), rtol=1e-4, atol=1e-5)


def test_counts_by_hand():
    # TT-matrix over (4 o 2 i) (4 o 3 i) (6 o 3 i) at ranks 2, 3: one core after the other, per token.
    model = compressed(nn.Embedding(96, 18), rank=[2, 3], layout="paired", plan="chain", in_modes=[2, 3, 3])
    report = tdcompress.count(model, (5,))
    (row,) = report["layers"]
    assert (row["kind"], row["shape"], row["plan"]) == (
        "embedding",
        [96, 18],
        "core1:slices > core2:slices > core3:slices",
    )
    assert report["parameters"] == 4 * 2 * 2 + 2 * 4 * 3 * 3 + 3 * 6 * 3
    assert report["dense_parameters"] == 96 * 18
    # (2 i1, r1 2) with (r1 2, i2 3, r2 3), then (i1 i2 6, r2 3) with (r2 3, i3 3), for five tokens.
    assert report["macs"] == 5 * (2 * 2 * 3 * 3 + 6 * 3 * 3)
    assert report["dense_macs"] == report["activation_macs"] == 0


def test_a_budget_of_macs_leaves_a_lookup_alone():
    model = nn.Sequential(Tokens(), nn.Embedding(200, 32), nn.Linear(32, 64), nn.Linear(64, 8))
    tdcompress.compress(model, "tt", "macs:0.5", (5,), keep=[])
    report = tdcompress.count(model, (5,))
    assert report["macs"] / report["dense_macs"] == pytest.approx(0.5, rel=0.02)
    assert "no MACs" in report["layers"][0]["reason"]


@pytest.mark.parametrize("format", FACTORISED)
def test_no_lookup_builds_the_table(format: str):
    torch.manual_seed(0)
    model = compressed(
        nn.Embedding(50_257, 64), format, 4, layout=layout_of(format, "paired"), init="variance", allow_larger=False
    )
    layer, x = model[1], tokens(2, 8)
    wanted = layer.weight[x]
    for grad in (True, False):
        layer.train(grad)
        with torch.set_grad_enabled(grad), Largest() as largest:
            found = layer(x)
        cores = max(core.numel() for core in layer.tensors())
        assert largest.entries <= max(cores, 50_257 * 64 / 10) < 50_257 * 64
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_row_at_padding_idx_stays_what_it_was_and_has_no_gradient():
    twin = nn.Embedding(ROWS, DIM, padding_idx=3)
    x = torch.tensor([[3, 5], [3, 96]])
    for row in (0.0, 2.5):
        twin.weight.data[3] = row
        layer = held(nn.Embedding.from_pretrained(twin.weight, freeze=False, padding_idx=3), "tt", "paired")
        assert (layer(x)[:, 0] == row).all() and (layer.weight[3] == row).all()
        pads = layer(torch.tensor([3, 3])).sum() * sum(core.sum() * 0 + 1 for core in layer.tensors())
        assert all((grad == 0).all() for grad in torch.autograd.grad(pads, layer.tensors()))
        with torch.no_grad():
            layer.cores["core1"].add_(1)
            assert (layer.eval()(x)[:, 0] == row).all()
        again = held(nn.Embedding(ROWS, DIM, padding_idx=3), "tt", "paired")
        again.load_state_dict(layer.state_dict())
        torch.testing.assert_close(again(x), layer(x))
        for keep_cores in (False, True):
            folded = tdcompress.fold(nn.Sequential(Tokens(), layer), (5,), keep_cores=keep_cores)[1]
            assert folded.padding_idx == 3
            torch.testing.assert_close(folded(x), layer(x))


@pytest.mark.parametrize("index", [-1, ROWS, ROWS + 5])  # the modes hold 99
def test_an_index_without_a_row_is_an_error(index: int):
    layer = held(nn.Embedding(ROWS, DIM), "tt", "paired")
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        layer(torch.tensor([0, index]))


def test_shapes_and_types_of_indices():
    layer = held(nn.Embedding(ROWS, DIM), "tt", "paired")
    x = tokens(3)
    for grad in (True, False):
        layer.train(grad)
        with torch.set_grad_enabled(grad):
            assert layer(x[0]).shape == (DIM,)
            assert layer(x[:0]).shape == (0, DIM) and layer(x[:0, None]).shape == (0, 1, DIM)
            assert torch.equal(layer(input=x), layer(x))
            torch.testing.assert_close(layer(x.int()), layer(x))
            with pytest.raises(RuntimeError):
                layer(x.float())
    low = held(nn.Embedding(ROWS, DIM), "tt", "paired").bfloat16()
    assert low(x).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == nn.Embedding(ROWS, DIM)(x).dtype == torch.float32


def test_it_exports_for_any_number_of_indices():
    layer = held(nn.Embedding(ROWS, DIM), "tt", "paired").eval()
    program = torch.export.export(layer, (tokens(3),), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.testing.assert_close(program.module()(tokens(5)), layer(tokens(5)))


@pytest.mark.parametrize("setting", [{"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}])
def test_settings_that_cores_cannot_have_leave_it_dense_with_the_reason(setting: dict[str, object]):
    with pytest.raises(ConfigError, match=f"1: {next(iter(setting))} cannot be had of cores"):
        compressed(nn.Embedding(ROWS, DIM, **setting))
