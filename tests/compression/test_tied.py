"""One parameter that several layers have as their weight: held once, as the same cores in each of them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import FACTORISED, einsum_weight, layout_of
from torch import Tensor, nn

import tdcompress
from tdcompress.compression.ranks.adaptive import shrink
from tdcompress.compression.switch import switch
from tdcompress.layers.base import Factorised
from tdcompress.layers.embedding import FactorisedEmbedding
from tdcompress.layers.linear import FactorisedLinear
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.train.optim.groups import frobenius_penalty, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, DIM, HIDDEN = 60, 16, 24


class Language(nn.Module):
    """Tokens in, scores of tokens out, by the same table."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, DIM, padding_idx)
        self.body = nn.Linear(DIM, DIM)
        self.out = nn.Linear(DIM, ROWS)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.body(self.table(x.long()))))


def by_hand(model: Language, x: Tensor, weight: Tensor) -> Tensor:
    rows = F.embedding(x, weight, model.table.padding_idx)
    return F.linear(torch.tanh(F.linear(rows, model.body.weight, model.body.bias)), weight, model.out.bias)


def compressed(model: Language, format: str = "tt", rank: object = 3, **settings: object) -> Language:
    return tdcompress.compress(model, format, rank, (5,), **{"rates": Rates(), "keep": ["body"], **settings})


X = torch.tensor([[1, 3, 59], [3, 0, 3]])


@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("format", FACTORISED)
def test_a_tied_pair_is_one_weight(format: str, padding_idx: int | None):
    model = compressed(Language(padding_idx), format, layout=layout_of(format, "paired"), allow_larger=True).double()
    assert isinstance(model.table, FactorisedEmbedding) and isinstance(model.out, FactorisedLinear)
    assert [id(core) for core in model.table.tensors()] == [id(core) for core in model.out.tensors()]
    weight = einsum_weight(model.out)
    found, wanted = model(X), by_hand(model, X, weight)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), list(model.parameters())),
        torch.autograd.grad(wanted.square().sum(), list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model).eval()(X), wanted, rtol=1e-9, atol=1e-9)
    report = tdcompress.count(model, (5,))
    cores = sum(core.numel() for core in model.table.tensors())
    assert report["parameters"] == cores + DIM * DIM + DIM + ROWS
    assert report["dense_parameters"] == ROWS * DIM + DIM * DIM + DIM + ROWS
    assert report["dense_macs"] == 5 * (DIM * DIM + DIM * ROWS)
    folded = tdcompress.fold(model, (5,), plan="dense", rates=Rates())
    assert folded.out.weight is folded.table.weight
    torch.testing.assert_close(folded(X), wanted, rtol=1e-9, atol=1e-9)
    for keep_cores in (False, True):
        folded = tdcompress.fold(model, (5,), rates=Rates(), keep_cores=keep_cores)
        torch.testing.assert_close(folded(X), wanted, rtol=1e-9, atol=1e-9)
    again = compressed(Language(padding_idx), format, layout=layout_of(format, "paired"), allow_larger=True).double()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(X), wanted, rtol=1e-9, atol=1e-9)


def test_by_default_it_is_held_although_the_last_linear_layer_is_not():
    model = Language()
    report = tdcompress.count(compressed(model, keep=None), (5,))
    assert [row["format"] for row in report["layers"]] == ["tt", "tt", "tt"]
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 24), nn.Linear(24, 4))
    model[1].weight = model[0].weight
    tdcompress.compress(model, "tt", 2, (16,))
    assert [isinstance(layer, Factorised) for layer in model] == [True, True, True, False]
    assert model[0].cores["core1"] is model[1].cores["core1"]


@pytest.mark.parametrize(("keep", "kept"), [("table", "table"), ("out", "out")])
def test_a_kept_layer_keeps_its_partner(keep: str, kept: str):
    model = compressed(Language(), keep=[keep])
    assert model.out.weight is model.table.weight and isinstance(model.body, Factorised)
    reasons = {row["name"]: row["reason"] for row in tdcompress.count(model, (5,))["layers"]}
    other = {"table": "out", "out": "table"}[kept]
    assert (reasons[kept], reasons[other]) == ("kept", f"its weight is also that of {kept}")


def test_a_weight_that_other_code_has_too_or_macs_are_to_be_saved_of_stays_dense():
    model = Language()
    model.register_parameter("other", model.table.weight)
    with pytest.raises(ConfigError, match="out: its weight is also that of table, the model itself"):
        compressed(model)
    assert model.out.weight is model.table.weight is model.other
    model = compressed(Language(), rank="macs:0.9", keep=[])
    assert model.out.weight is model.table.weight
    assert tdcompress.count(model, (5,))["macs"] < 5 * (DIM * DIM + DIM * ROWS)


def test_settings_are_those_of_the_first():
    with pytest.raises(ConfigError, match="the weight of out is that of table, name that layer"):
        compressed(Language(), layers={"out": {"rank": 2}})
    model = compressed(Language(), layers={"table": {"rank": 2}})
    assert set(model.out.graph.ranks.values()) == {2}


def test_ranks_are_cut_once_for_both():
    model = compressed(Language(), rank=6, layout="paired", init="fit", allow_larger=True)
    total = sum(p.numel() for p in model.parameters())
    shrink(model, total - 150)
    assert total / 2 < sum(p.numel() for p in model.parameters()) <= 1.02 * (total - 150)
    assert model.table.graph == model.out.graph and model.table.graph.sizes == model.out.graph.sizes
    torch.testing.assert_close(model(X), by_hand(model, X, einsum_weight(model.table)), rtol=1e-4, atol=1e-5)


def test_decay_counts_it_once():
    dense, model = Language(), compressed(Language())
    for decay in ("scaled", "frobenius", "factors"):
        before, after = (parameter_groups(one, decay, 0.1, ["table", "out"]) for one in (dense, model))
        assert len(before) == len(after)
        for one, groups in ((dense, before), (model, after)):
            parameters = [id(p) for group in groups for p in group["params"]]
            assert sorted(parameters) == sorted(id(p) for p in one.parameters())
    torch.testing.assert_close(frobenius_penalty(model, 2.0), einsum_weight(model.out).square().sum())


def test_a_dense_training_goes_on_and_a_budget_is_met():
    model = Language()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    model(X).square().sum().backward()
    optimizer.step()
    switch(model, optimizer, "tt", "2x", (5,), keep=["body"])
    report = tdcompress.count(model, (5,))
    assert report["compression_ratio"] == pytest.approx(2, rel=0.02)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    assert set(optimizer.param_groups[0]["param_names"]) == {name for name, _ in model.named_parameters()}
    before = model(X).detach()
    model(X).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(X), before)
    torch.testing.assert_close(model(X), by_hand(model, X, einsum_weight(model.out)), rtol=1e-4, atol=1e-5)


def test_given_cores_are_held_once():
    model = compressed(Language())
    given = {name: dict(layer.cores) for name, layer in (("table", model.table), ("out", model.out))}
    again = compressed(Language(), cores=given)
    assert again.table.cores["core1"] is again.out.cores["core1"]
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), model(X))


def test_what_a_table_is_multiplied_with_beside_its_lookups_counts():
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(60, 16)

        def forward(self, tokens: Tensor) -> Tensor:
            return F.linear(self.table(tokens), self.table.weight)

    model, tokens = Reads(), torch.randint(60, (2, 5))
    tdcompress.compress(model, "tt", 2, example_inputs=tokens)
    (row,) = tdcompress.report(model).counts["layers"]
    (fresh,) = tdcompress.count(model, example_inputs=tokens)["layers"]
    assert row == fresh and row["dense_macs"] == 2 * 5 * 60 * 16 < row["macs"]  # a lookup multiplies slices of cores
    wanted = F.embedding(tokens, model.table.to_dense()) @ model.table.to_dense().T
    torch.testing.assert_close(model(tokens), wanted, rtol=1e-4, atol=1e-5)
