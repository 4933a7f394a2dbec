"""compress: which layers it swaps, and what it leaves alone."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator

import pytest
import torch
from cases import FACTORISED
from networks import DEFAULT, SHAPE, Net, swapped
from torch import Tensor, nn

import tdcompress
from tdcompress.compression import spec
from tdcompress.compression.swap import compress
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import factorised
from tdcompress.layers.linear import FactorisedLinear
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS, register
from tdcompress.tensor.graph import Core

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (None, DEFAULT),  # all but the first convolution, the last linear layer, and what is never called
        ([], ["stem", *DEFAULT, "head"]),
        (["body.*"], ["stem", "hidden", "head"]),
        (["stem", "*.conv"], ["body.1.0", "hidden", "head"]),
    ],
)
def test_which_layers_are_kept(keep: list[str] | None, expected: list[str]):
    model = Net()
    stem = model.stem
    assert compress(model, "tt", 4, SHAPE, keep=keep) is model
    assert swapped(model) == dict.fromkeys(expected, "tt")
    assert ("stem" in expected) == (model.stem is not stem)
    assert isinstance(model.unused, nn.Linear)
    assert model(torch.randn(2, *SHAPE)).shape == (2, 10)


def test_a_model_of_linear_layers_keeps_its_last():
    model = compress(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), "cp", 2, (16,))
    assert swapped(model) == {"0": "cp"}


def test_the_dense_format_changes_nothing():
    model = Net()
    before = {name: id(layer) for name, layer in model.named_modules()}
    compress(model, "dense", 4, SHAPE)
    assert {name: id(layer) for name, layer in model.named_modules()} == before


def test_a_layer_that_would_grow_stays_dense():
    # TT of 288 -> 64 at rank 60: 60 * (288 + 64) entries against 18,432; at rank 52 it still shrinks.
    with pytest.raises(ConfigError, match=r"hidden.*: its cores would hold no fewer entries"):
        compress(Net(), "tt", 60, SHAPE, layout="matrix")
    assert "hidden" in swapped(compress(Net(), "tt", 52, SHAPE, layout="matrix"))
    assert "hidden" in swapped(compress(Net(), "tt", 60, SHAPE, layout="matrix", allow_larger=True))


@pytest.mark.parametrize("format", FACTORISED)
def test_checkpointing_changes_no_number(format: str):
    def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
        used = [value for name, value in model.named_parameters() if not name.startswith("unused")]
        return list(torch.autograd.grad(loss, used))

    model, x = compress(Net(), format, 4, SHAPE).eval(), torch.randn(2, *SHAPE)
    plain = gradients(model(x).square().sum(), model)
    frugal = compress(Net(), format, 4, SHAPE, checkpoint=True).eval()
    frugal.load_state_dict(model.state_dict())
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = frugal(x).square().sum()
    for found, expected in zip(gradients(loss, frugal), plain, strict=True):
        torch.testing.assert_close(found, expected)
    counted: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: counted.append(t) or t, lambda t: t):
        model(x)
    assert len(kept) < len(counted)


@pytest.mark.parametrize("kind", ["in place", "not"])
def test_an_activation_in_place_behind_a_chain_needs_no_copy(kind: str):
    conv = compress(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), "tt", 2, (8, 6, 6), keep=[], plan="chain")
    out = nn.Sequential(conv, nn.ReLU(inplace=kind == "in place"))(torch.randn(2, 8, 6, 6))
    assert type(out.grad_fn).__name__ == "ReluBackward0"


def test_a_layer_under_two_names_is_swapped_under_both():
    tied = nn.Linear(64, 64)
    model = compress(nn.Sequential(tied, nn.ReLU(), tied, nn.Linear(64, 10)), "tt", 4, (64,))
    assert model[0] is model[2] and isinstance(model[0], FactorisedLinear)
    alone = compress(tied, "tt", 4, (64,), keep=[])
    assert isinstance(alone, FactorisedLinear) and not any(isinstance(m, nn.Linear) for m in alone.modules())


def test_what_is_frozen_stays_frozen_and_counts():
    model = Net().requires_grad_(False)
    compress(model, "tt", "5x", SHAPE)
    whole = sum(p.numel() for p in Net().parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(whole / 5, rel=0.02)
    assert swapped(model) and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("format", FACTORISED)
def test_a_transformer_reads_the_weights_of_its_layers(format: str):
    model = compress(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), format, 4, (5, 16), keep=[], allow_larger=True
    )
    model = model.double()
    assert isinstance(model.linear1, FactorisedLinear)
    x = torch.randn(3, 5, 16, dtype=torch.double)
    model.eval()
    with torch.no_grad():
        fast = model(x)  # torch's own kernel, which is given linear1.weight
    torch.testing.assert_close(fast, model(x).detach())


@pytest.mark.parametrize("format", FACTORISED)
def test_copies_pickles_and_state_dicts(format: str):
    model, x = compress(Net(), format, 4, SHAPE).eval(), torch.randn(2, *SHAPE)
    expected = model(x)
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    other = compress(Net(), format, 4, SHAPE).eval()
    assert not torch.equal(other(x), expected)
    other.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert torch.equal(twin(x), expected)
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}


@pytest.mark.parametrize("format", FACTORISED)
def test_one_layer_exports(format: str):
    twin = nn.Conv2d(8, 8, 3, padding=1)
    model, x = compress(nn.Sequential(twin), format, 3, (8, 6, 6), keep=[]), torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


@pytest.mark.parametrize("training", [True, False])
def test_modes_statistics_and_bystanders_are_untouched(training: bool):
    model = Net().train(training)
    model.drop.train(not training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    compress(model, "tr", 4, SHAPE)
    modes = {name: layer.training for name, layer in model.named_modules()}
    assert {name for name, mode in modes.items() if mode != training} == {"drop"}
    after = model.state_dict()
    same = [name for name in state if name in after]
    assert {"body.0.norm.running_mean", "body.0.norm.num_batches_tracked", "body.1.0.bias"} <= set(same)
    assert all(torch.equal(state[name], after[name]) for name in same)
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_the_seed_decides_the_cores():
    def cores(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        model = compress(Net(), "ht", 4, SHAPE)
        return [core for layer in model.modules() if isinstance(layer, Factorised) for core in layer.tensors()]

    for first, same, other in zip(cores(1), cores(1), cores(2), strict=True):
        assert torch.equal(first, same)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("init", ["fit", "rough", "spectral"])
@pytest.mark.parametrize("format", FACTORISED)
def test_layers_are_fitted_side_by_side_as_they_are_one_after_the_other(format: str, init: str):
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(4)])
        torch.set_num_threads(threads)
        try:
            compress(model, format, 2, (8, 12, 12), keep=[], init=init)
        finally:
            torch.set_num_threads(before)
        found.append([*model.parameters(), torch.rand(1)])  # and no random number more
    assert all(map(torch.equal, *found))


def test_rates_are_of_all_threads(monkeypatch):
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(spec, "device_rates", lambda *_: asked.append(torch.get_num_threads()) or Rates())
    torch.set_num_threads(2)
    try:
        compress(nn.Sequential(*[nn.Linear(16, 16) for _ in range(4)]), "tt", 2, (16,), keep=[])
    finally:
        torch.set_num_threads(before)
    assert asked == [2] * 4


def test_types_follow_the_model():
    model = compress(Net().to(torch.bfloat16), "tucker", 4, SHAPE)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.randn(2, *SHAPE, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_layers_are_named_as_their_turn_comes():
    told, model = [], nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))

    def progress(names: list[str]) -> Iterator[str]:
        for name in names:
            assert not factorised(model)
            told.append(name)
            yield name

    assert (
        list(factorised(tdcompress.compress(model, "tt", 2, (16,), keep=[], progress=progress))) == told == ["0", "2"]
    )


def test_names_that_come_back_in_another_order_are_only_shown():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    weights = [layer.weight.detach().clone() for layer in model]
    settings = {"keep": [], "init": "fit", "allow_larger": True, "progress": lambda names: names[::-1]}
    tdcompress.compress(model, "tucker", 16, (16,), **settings)
    for layer, weight in zip(model, weights, strict=True):
        torch.testing.assert_close(layer.to_dense(), weight, rtol=1e-3, atol=1e-4)


def test_it_is_the_packages_own_name():
    assert tdcompress.compress is compress
    with pytest.raises(AttributeError, match="squeeze"):
        tdcompress.squeeze  # noqa: B018


def test_a_sixth_format_needs_one_function():
    @register("block_term", layout="channels")
    def block_term(layout) -> list[Core]:
        """A sum of Tucker blocks (De Lathauwer 2008): the hyperedge ``blocks`` runs through all cores."""
        factors = [Core(f"factor{k}", ("blocks", *site, f"b{k}")) for k, site in enumerate(layout.sites)]
        return [*factors, Core("core", ("blocks", *(f"b{k}" for k in range(len(factors)))))]

    try:
        model = compress(Net(), "block_term", 3, SHAPE)
        assert swapped(model) == dict.fromkeys(DEFAULT, "block_term")
        layer, x = model.body[0].conv.double(), torch.randn(2, 16, 5, 5, dtype=torch.float64)
        expected = nn.functional.conv2d(x, layer.to_dense(), padding=1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)
    finally:
        del FORMATS["block_term"]
    assert "block_term" not in FORMATS
