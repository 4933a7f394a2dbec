"""Folded networks: torch's own modules, and torch's own layers with the reconstructed weight as the oracle."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from threading import Lock

import pytest
import torch
from cases import CASES, IMAGE, IN, Case, assert_close, einsum_dense
from torch import Tensor, nn

from tdcompress import compress, fold
from tdcompress.compression.export.fold import PLANS, _chain
from tdcompress.layers.base import Factorised
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.search import paths
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")
RATES = Rates()


def example(case: Case, batch: int = 2) -> Tensor:
    shape = (batch, IN, *IMAGE) if case.kind == "conv" else (batch, IN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def plain(layer: Factorised, twin: nn.Module, x: Tensor) -> Tensor:
    weight = einsum_dense(layer.graph, layer.tensors()).reshape(layer.weight_shape)
    state = {"weight": weight} | ({} if layer.bias is None else {"bias": layer.bias})
    return torch.func.functional_call(twin.double(), state, (x,))


def assert_plain(model: nn.Module) -> None:
    for module in model.modules():
        assert type(module).__module__.startswith("torch.nn."), type(module)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_format_and_layout(case: Case, plan: str):
    twin = case.twin()
    layer = case.layer(twin=twin)
    x = example(case)
    folded, kept = (fold(layer, x.shape[1:], plan=plan, rates=RATES, keep_cores=keep) for keep in (False, True))
    assert_plain(folded)
    for network in (folded, kept):
        assert_close(network(x), plain(layer, twin, x))
    adding = 12  # ones, where no call can add the bias
    assert sum(p.numel() for p in kept.parameters()) <= sum(p.numel() for p in layer.parameters()) + adding


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_path(case: Case):
    twin = case.twin()
    layer = case.layer(2, twin=twin)
    x = example(case)
    for path in paths(layer.graph, layer.geometry(3, tuple(x.shape)), RATES, "measure"):
        for keep in (False, True):
            assert_close(_chain(layer, path, [tuple(x.shape)], keep)(x), plain(layer, twin, x))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("layer", [nn.Linear(16, 16), nn.Conv1d(16, 16, 3, groups=2), nn.LSTM(16, 16)], ids=str)
def test_hooks_are_those_of_the_layer(layer: nn.Module, plan: str):
    x = torch.randn(2, 16, 16)
    calls: list[nn.Module] = []
    layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    layer.register_forward_pre_hook(lambda _, args: (args[0].clamp(min=0),))
    layer.register_state_dict_post_hook(lambda _, state, prefix, meta: state.update({f"{prefix}more": x}))
    model = compress(nn.Sequential(layer), "tt", 4, example_inputs=x, keep=[], allow_larger=True, rates=RATES)
    folded = fold(model, example_inputs=x, plan=plan, rates=RATES)
    calls.clear()
    found = [one(x) if isinstance(one(x), Tensor) else one(x)[0] for one in (model, folded)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert {model[0], folded[0]} == {*calls} and "0.more" in folded.state_dict().keys() & model.state_dict().keys()


def test_a_linear_layer_that_is_given_several_shapes():
    class Pooled(nn.Module):
        """The same layer before and after every other step is left out."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)[:, ::2])

    for rank in (1, 8):
        model = compress(Pooled().double(), "tr", rank, (6, 8), layout="split", factors=2, keep=[], allow_larger=True)
        x = torch.randn(2, 6, 8, dtype=torch.float64)
        assert_close(fold(model, (6, 8), plan="chain", rates=RATES)(x), model(x))


@pytest.mark.parametrize(("format", "layout"), [("btt", "split"), ("tt", "paired")])
@pytest.mark.parametrize("keep", [False, True])
def test_other_numbers_of_steps_are_refused_and_never_mixed(format: str, layout: str, keep: bool):
    layers = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256))
    model = compress(layers, format, 2, (3, 8, 256), layout=layout, keep=[], rates=RATES).eval()
    folded = fold(model, (3, 8, 256), plan="chain", rates=RATES, keep_cores=keep)
    for batch in (1, 5):
        x = torch.randn(batch, 3, 8, 256)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    for steps in ((3, 6), (6, 8), (8, 3)):  # 4 inputs of 3 x 6 could be taken for 3 of 3 x 8
        with pytest.raises(RuntimeError, match="unflatten"):
            folded(torch.randn(4, *steps, 256))


class Tied(nn.Module):
    """Two layers whose parameters, of the same names, are the same ones."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.a, self.b = make(), make()
        for name, parameter in self.a.named_parameters():
            owner, _, own = name.rpartition(".")
            setattr(self.b.get_submodule(owner), own, parameter)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b):
            found = layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x)
            x = found[0] if isinstance(found, tuple) else found
        return x


TIED = {
    "linear": lambda: nn.Linear(32, 32),
    "lstm": lambda: nn.LSTM(32, 32, batch_first=True),
    "attention": lambda: nn.MultiheadAttention(32, 4, batch_first=True),
}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("make", TIED.values(), ids=TIED)
def test_what_layers_share_they_share_afterwards(make: Callable[[], nn.Module], keep: bool):
    dense = sum(parameter.numel() for parameter in make().parameters())
    model = compress(Tied(make), "tt", 2, (5, 32), keep=[], allow_larger=True, rates=RATES)
    assert sum(parameter.numel() for parameter in model.parameters()) < dense
    folded = fold(model, (5, 32), plan="model" if keep else "dense", rates=RATES, keep_cores=keep)
    wanted = sum(parameter.numel() for parameter in model.parameters()) if keep else dense
    assert sum(parameter.numel() for parameter in folded.parameters()) == wanted
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_last_layer_of_attention_is_what_it_was():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    out = layer.self_attn.out_proj
    out.bias.requires_grad_(False)
    out.register_forward_hook(lambda *_: None)
    model = compress(layer, "tt", 2, (5, 32), keep=[], allow_larger=True, rates=RATES)
    folded = fold(model, (5, 32), rates=RATES).self_attn.out_proj
    assert not folded.bias.requires_grad and folded.weight.requires_grad and not folded.training
    assert len(folded._forward_hooks) == 1


def test_under_autocast_it_is_the_same():
    model = compress(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), "tt", 4, (64,), keep=[], rates=RATES)
    wanted = fold(model, (64,), plan="dense")
    with torch.autocast("cpu", torch.bfloat16):
        found = fold(model, (64,), plan="dense")
    assert all(map(torch.equal, found.parameters(), wanted.parameters()))


def test_a_model_that_asks_a_layer_for_more_than_a_chain_has_is_refused():
    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x, output_size=[8, 8])

    model, x = compress(Up(), "tucker", 4, (64, 4, 4), keep=[], rates=RATES), torch.randn(1, 64, 4, 4)
    with pytest.raises(ConfigError, match=r"cannot take .*'output_size'; with plan='dense'"):
        fold(model, (64, 4, 4), plan="chain", rates=RATES)
    torch.testing.assert_close(fold(model, (64, 4, 4), plan="dense")(x), model(x), rtol=1e-4, atol=1e-5)


def test_in_inference_mode_it_is_a_model_that_can_be_trained_and_nothing_of_this_package():
    model = nn.Sequential(compress(nn.Sequential(nn.Linear(64, 64)), "tt", 4, (64,), keep=[], rates=RATES))
    with torch.inference_mode():
        folded = fold(model, (64,), rates=RATES)
    folded(torch.randn(2, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in folded.parameters())
    assert b"tdcompress" not in pickle.dumps(folded)


def test_attention_has_torchs_classes():
    dense = nn.Sequential(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 32))
    plain = fold(compress(copy.deepcopy(dense), "tt", 4, (5, 32), keep=[], rates=RATES), (5, 32), plan="dense")
    assert [type(one) for one in plain.modules()] == [type(one) for one in dense.modules()]


def test_what_cannot_be_copied_is_named():
    model = nn.Sequential(compress(nn.Sequential(nn.Linear(64, 64)), "tt", 4, (64,), keep=[], rates=RATES))
    model[0].lock = Lock()
    with pytest.raises(ConfigError, match=r"^0\.lock of the model cannot be copied: cannot pickle '_thread\.lock'"):
        fold(model, (64,), rates=RATES)


class AsksForLinear(nn.Module):
    """Which treats what has inputs and outputs, as linear layers have, in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu() if hasattr(layer, "in_features") else layer(x)
        return x


def test_a_model_that_computes_something_else_with_chains_is_told():
    torch.manual_seed(0)
    model = compress(AsksForLinear(), "tt", 4, (64,), keep=[], rates=RATES)
    with pytest.raises(ConfigError, match=r"computes something else, .*plan='dense'"):
        fold(model, (64,), plan="chain", rates=RATES)
    x = torch.rand(3, 64)
    torch.testing.assert_close(fold(model, (64,), plan="dense", rates=RATES)(x), model(x), rtol=1e-4, atol=1e-5)
