"""Multi-head attention with each projection as cores, against torch's own layer that holds the same weights."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import FACTORISED, assert_close, layout_of
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import factorised
from tdcompress.layers.parted.attention import PartedAttention
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, HEADS, STEPS, KEYS, BATCH = 8, 2, 5, 4, 3
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first, further keys": {"batch_first": True, "add_bias_kv": True, "add_zero_attn": True},
    "sizes apart": {"kdim": 6, "vdim": 4, "bias": False},
}


class Attends(nn.Module):
    """Attention of an input to itself, to another for keys and values, or to two others."""

    def __init__(self, to: int, **settings: Any) -> None:
        super().__init__()
        self.to, self.attention = to, nn.MultiheadAttention(WIDTH, HEADS, **settings)

    def forward(self, x: Tensor, **options: Any) -> Any:
        attention = self.attention
        if self.to == 0:
            return attention(x, x, x, **options)
        other = x.flip(-1)[..., :KEYS, :] if attention.batch_first or x.dim() == 2 else x.flip(-1)[:KEYS]
        keys = other[..., : attention.kdim]
        return attention(x, keys, keys if self.to == 1 else other[..., : attention.vdim].cos(), **options)


CASES = [(name, to) for name in SETTINGS for to in range(3) if to == 2 or "kdim" not in SETTINGS[name]]


def compressed(model: nn.Module, format: str = "tt", **settings: Any) -> nn.Module:
    settings = {"allow_larger": True, "keep": [], "plan": "chain", "rates": Rates(), **settings}
    settings = {"layout": layout_of(format, "matrix"), **settings}
    return tdcompress.compress(copy.deepcopy(model), format, 3, (STEPS, WIDTH), **settings)


def dense(part: nn.Module) -> Tensor:
    return part.to_dense() if isinstance(part, Factorised) else part.weight


def torchs(ours: Attends, twin: Attends) -> Attends:
    """The same in torch's own layer, which holds the weights that the cores stand for."""
    held, theirs = ours.attention, copy.deepcopy(twin)
    values = {name: value for name, value in held.named_parameters() if "bias" in name}
    parts = [dense(part) for name, part in held.named_children() if name != "out_proj"]
    if theirs.attention.in_proj_weight is not None:
        values["in_proj_weight"] = torch.cat(parts)
    else:
        values |= dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), parts, strict=True))
    theirs.attention.load_state_dict({**values, "out_proj.weight": dense(held.out_proj)})
    return theirs


def masks(attention: nn.MultiheadAttention, keys: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    boolean = torch.rand(STEPS, keys, generator=generator) > 0.7
    boolean[:, 0] = False  # something is left to attend to
    padding = torch.tensor([[False] * keys, [False] * (keys - 1) + [True], [False] * (keys - 2) + [True] * 2])
    added = torch.randn(BATCH * HEADS, STEPS, keys, dtype=torch.float64, generator=generator)
    causal = torch.triu(torch.full((STEPS, keys), -torch.inf, dtype=torch.float64), 1)
    return [
        {},
        {"attn_mask": boolean},
        {"attn_mask": added},
        {"key_padding_mask": padding},
        {"attn_mask": boolean, "key_padding_mask": padding},
        {"attn_mask": causal, "is_causal": True},
    ]


@pytest.mark.parametrize(("name", "to"), CASES)
@pytest.mark.parametrize("format", FACTORISED)
def test_outputs_weights_and_gradients_are_torchs(format: str, name: str, to: int):
    torch.manual_seed(0)
    twin = Attends(to, **SETTINGS[name]).double()
    ours = compressed(twin, format)
    held = ours.attention
    names = ["in_proj"] if to == 0 else ["q_proj", "k_proj", "v_proj"]
    assert isinstance(held, nn.MultiheadAttention)
    assert list(factorised(held)) == ["out_proj", *names]
    theirs = torchs(ours, twin)
    shape = (BATCH, STEPS, WIDTH) if held.batch_first else (STEPS, BATCH, WIDTH)
    x = torch.randn(shape, dtype=torch.float64)
    for options in masks(held, STEPS if to == 0 else KEYS):
        for need, average in itertools.product((True, False), repeat=2):
            options |= {"need_weights": need, "average_attn_weights": average}
            (found, weights), (wanted, others) = ours(x, **options), theirs(x, **options)
            assert_close(found, wanted)
            assert (weights is None) == (others is None)
            if weights is not None:
                assert_close(weights, others)
    assert_close(ours(x[0])[0], theirs(x[0])[0])  # one sequence alone
    ((found * found.cos().detach()).sum() + (wanted * wanted.cos().detach()).sum()).backward()
    gradient = theirs.attention.out_proj.weight.grad
    cores = held.out_proj.tensors()
    for core, expected in zip(cores, torch.autograd.grad(held.out_proj.to_dense(), cores, gradient), strict=True):
        assert_close(core.grad, expected)
    first = held.get_submodule(names[0])
    attention = theirs.attention
    gradient = (attention.q_proj_weight if attention.in_proj_weight is None else attention.in_proj_weight).grad
    expected = torch.autograd.grad(first.to_dense(), first.tensors(), gradient[: len(first.to_dense())])
    for core, value in zip(first.tensors(), expected, strict=True):
        assert_close(core.grad, value)


def test_counted_by_hand():
    for to, dense_macs in ((0, STEPS * 4 * WIDTH**2), (1, (2 * STEPS + 2 * KEYS) * WIDTH**2)):
        twin = Attends(to, batch_first=True)
        report = tdcompress.count(compressed(twin), (STEPS, WIDTH))
        before = tdcompress.count(twin, (STEPS, WIDTH))
        assert report["dense_macs"] == before["macs"] == dense_macs
        assert report["dense_parameters"] == before["parameters"] == 4 * WIDTH**2 + 4 * WIDTH
        assert report["activation_macs"] == before["activation_macs"]
        rank, packed = 3, STEPS * 4 * WIDTH
        macs = packed if to == 0 else STEPS * 2 * WIDTH + 2 * KEYS * 2 * WIDTH
        assert report["macs"] == rank * (macs + STEPS * 2 * WIDTH)


def test_weights_that_are_read_without_calling_their_layers():
    class Own(nn.Module):
        """Attention that reads the weights of a layer of torch's, and a linear layer that is never called."""

        def __init__(self) -> None:
            super().__init__()
            self.attention, self.table = nn.MultiheadAttention(WIDTH, HEADS), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            a = self.attention
            x = F.linear(x, self.table.weight)
            x = F.linear(x, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)[0]
            return F.linear(x, a.out_proj.weight, a.out_proj.bias)

    torch.manual_seed(0)
    dense, x = Own(), torch.randn(2, STEPS, WIDTH)
    model = tdcompress.compress(copy.deepcopy(dense), "tt", 99, (STEPS, WIDTH), keep=[], allow_larger=True, init="fit")
    assert list(factorised(model)) == ["attention.out_proj", "attention.in_proj", "table"]
    for new in (model, model.eval(), tdcompress.fold(model, (STEPS, WIDTH))):
        torch.testing.assert_close(new(x), dense(x), rtol=1e-4, atol=1e-5)
    rows = {row["name"]: row for row in tdcompress.count(model, (STEPS, WIDTH))["layers"]}
    assert {row["put_together"] for row in rows.values()} == {True}
    assert rows["table"]["macs"] == rows["table"]["dense_macs"] == STEPS * WIDTH**2
    assert rows["attention.in_proj"]["dense_macs"] == 3 * rows["table"]["macs"]
    with pytest.raises(ConfigError, match="its weight is used without calling it, which saves no MACs"):
        tdcompress.compress(Own(), "tt", "macs:0.5", (STEPS, WIDTH), keep=[])


def test_weights_read_by_torchs_names():
    ours = compressed(Attends(0)).attention
    assert_close(ours.in_proj_weight, ours.in_proj.to_dense())
    assert ours.q_proj_weight is None and ours.out_proj.weight.shape == (WIDTH, WIDTH)


# Transformer layers


def encoder(**settings: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, batch_first=True, **settings)
    return nn.TransformerEncoder(layer, 2).double()


def order(ours: nn.TransformerEncoder) -> list[nn.Module]:
    """The layers with a weight, as a pass reaches them."""
    named = [dict(layer.named_modules()) for layer in ours.layers]
    names = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
    return [layers[name] for layers in named for name in names if name in layers]


@pytest.mark.parametrize("keep", [[], ["*linear*"], ["*self_attn*"]], ids=str)
def test_the_fast_path_calls_our_layers(keep: list[str], monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    twin = encoder().eval()
    ours = compressed(twin, keep=keep)
    theirs = copy.deepcopy(twin)
    for mine, layer in zip(ours.layers, theirs.layers, strict=True):
        if "*linear*" not in keep:
            layer.linear1.weight.data, layer.linear2.weight.data = dense(mine.linear1), dense(mine.linear2)
        if "*self_attn*" not in keep:
            layer.self_attn.in_proj_weight.data = dense(mine.self_attn.in_proj)
            layer.self_attn.out_proj.weight.data = dense(mine.self_attn.out_proj)
    called, contract = [], Factorised.contract  # hooks would end torch's fast path themselves
    monkeypatch.setattr(
        Factorised, "contract", lambda *args, **keys: (called.append(args[0]), contract(*args, **keys))[1]
    )
    x = torch.randn(BATCH, STEPS, WIDTH, dtype=torch.float64)
    padding = torch.arange(STEPS) >= torch.tensor([STEPS, 3, 4])[:, None]
    for options in ({}, {"src_key_padding_mask": padding}):
        with torch.no_grad():
            found, wanted = ours(x, **options), theirs(x, **options)
        assert_close(found[~padding], wanted[~padding])
        assert called == [layer for layer in order(ours) if isinstance(layer, Factorised)]
        called.clear()


def test_a_whole_transformer():
    class Translates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.Transformer(WIDTH, HEADS, 1, 1, 12, batch_first=True, dropout=0.0)

        def forward(self, x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=x.dtype)
            return self.transformer(x, x[:, :3].cos(), tgt_mask=mask, tgt_is_causal=True)

    torch.manual_seed(0)
    model = compressed(Translates().double())
    x = torch.randn(BATCH, STEPS, WIDTH, dtype=torch.float64)
    trained, folded = model(x), tdcompress.fold(model, (STEPS, WIDTH), keep_cores=True)
    assert_close(folded(x), trained)
    plain = tdcompress.fold(model, (STEPS, WIDTH)).eval()
    assert not any(isinstance(module, PartedAttention | Factorised) for module in plain.modules())
    with torch.no_grad():
        assert_close(plain(x), trained)
    assert_close(model.eval()(x), trained)


@pytest.mark.parametrize("cores", ["some", "none"])
@pytest.mark.parametrize("to", [0, 1])
def test_a_switch_in_training_hands_every_parameter_over(to: int, cores: str):
    model = Attends(to)
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.1}], momentum=0.9)
    model(torch.randn(STEPS, BATCH, WIDTH))[0].sum().backward()
    optimizer.step()
    kept = {"some": "k", "none": "?"}[cores]  # of a weight that was one a third stays dense, or all of it
    keep = [f"attention.{kept}_proj"] if to else []
    tdcompress.switch(model, optimizer, "tt", 2, (STEPS, WIDTH), keep=keep, layout="matrix")
    assert set(optimizer.param_groups[0]["params"]) == set(model.parameters())
    model(torch.randn(STEPS, BATCH, WIDTH))[0].sum().backward()
    optimizer.step()


def test_a_shared_projection_stays_shared():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Attends(1), Attends(1)
            self.two.attention.in_proj_weight = self.one.attention.in_proj_weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x)[0])[0]

    twin = Twice()
    model = compressed(twin)
    assert list(factorised(model)) == ["one.attention.out_proj", "two.attention.out_proj"]
    assert model.one.attention.in_proj.weight is model.two.attention.in_proj.weight
    report = tdcompress.count(model, (STEPS, WIDTH))
    rows = {row["name"]: row["reason"] for row in report["layers"]}
    assert rows["one.attention.in_proj"] == "its weight is also that of two.attention.in_proj"
    assert report["dense_macs"] == tdcompress.count(twin, (STEPS, WIDTH))["macs"]


def test_cores_that_were_planned_for_one_input_take_two():
    torch.manual_seed(0)
    twin = Attends(0).double()
    ours, theirs = (lambda held: (held, torchs(held, twin)))(compressed(twin))
    x = torch.randn(STEPS, BATCH, WIDTH, dtype=torch.float64)
    for to in (1, 2):
        ours.to = theirs.to = to
        assert_close(ours(x)[0], theirs(x)[0])


def test_it_exports():
    ours, x = compressed(Attends(0)).eval(), torch.randn(STEPS, BATCH, WIDTH)
    torch.testing.assert_close(torch.export.export(ours, (x,)).module()(x)[0], ours(x)[0])


def test_it_exports_for_any_batch():
    settings = {"batch_first": True, "add_bias_kv": True}
    ours = compressed(Attends(1, **settings)).eval()
    program = torch.export.export(ours, (torch.randn(4, STEPS, WIDTH),), dynamic_shapes=({0: torch.export.Dim("b")},))
    x = torch.randn(BATCH, STEPS, WIDTH)
    torch.testing.assert_close(program.module()(x)[0], ours(x)[0])


def test_nested_tensors_are_refused():
    ours = compressed(Attends(0, batch_first=True))
    nested = torch.nested.nested_tensor([torch.randn(2, WIDTH), torch.randn(3, WIDTH)])
    with pytest.raises(TypeError, match="takes no nested tensors: pad"):
        ours(nested)
