"""compress: which layers it swaps, what it refuses, and what it leaves alone."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections import OrderedDict

import numpy
import pytest
import torch
from torch import Tensor, nn

import tdcompress
from tdcompress.compression import plans as planning
from tdcompress.compression.plans import plans, tune, use_plans
from tdcompress.compression.swap import compress
from tdcompress.config.schema import MethodConfig
from tdcompress.layers.base import Factorised
from tdcompress.layers.conv import FactorisedConv
from tdcompress.layers.linear import FactorisedLinear
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS, register
from tdcompress.tensor.graph import Core
from tdcompress.tensor.rank import Size

pytestmark = pytest.mark.usefixtures("one_thread")

FACTORISED = sorted(name for name, format in FORMATS.items() if format.factorised)
SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Nested modules, batch norm, dropout, a functional call in between, and a layer no forward pass reaches."""

    def __init__(self) -> None:
        super().__init__()
        block = OrderedDict(conv=nn.Conv2d(16, 16, 3, padding=1, bias=False), norm=nn.BatchNorm2d(16), relu=nn.ReLU())
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.ModuleList([nn.Sequential(block), nn.Sequential(nn.Conv2d(16, 32, 3, stride=2), nn.ReLU())])
        self.hidden = nn.Linear(32 * 9, 64)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 10)
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.body:
            x = part(x)
        return self.head(self.drop(torch.relu(self.hidden(x.flatten(1)))))


def swapped(model: nn.Module) -> dict[str, str]:
    """The factorised layers and their formats."""
    return {name: layer.format for name, layer in model.named_modules() if isinstance(layer, Factorised)}


DEFAULT = ["body.0.conv", "body.1.0", "hidden"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (None, DEFAULT),  # all but the first convolution, the last linear layer, and what is never called
        ([], ["stem", *DEFAULT, "head"]),
        (["body.*"], ["stem", "hidden", "head"]),
        (["stem", "*.conv"], ["body.1.0", "hidden", "head"]),
        (["*"], []),
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


def test_a_format_for_each_kind_of_layer():
    model = compress(Net(), MethodConfig(format="tt", conv="tucker"), 4, SHAPE)
    assert swapped(model) == {"body.0.conv": "tucker", "body.1.0": "tucker", "hidden": "tt"}
    assert isinstance(model.hidden, FactorisedLinear)
    assert isinstance(model.body[1][0], FactorisedConv)
    assert swapped(compress(Net(), "cp", 4, SHAPE, linear="dense")) == {"body.0.conv": "cp", "body.1.0": "cp"}


def test_the_dense_format_changes_nothing():
    model = Net()
    before = {name: id(layer) for name, layer in model.named_modules()}
    compress(model, "dense", 4, SHAPE)
    assert {name: id(layer) for name, layer in model.named_modules()} == before


def test_overrides_for_single_layers():
    hidden = {"layout": "split", "in_modes": [16, 18], "out_modes": [8, 8]}
    layers = {"body.*": {"rank": 2, "format": "cp"}, "hidden": hidden}
    model = compress(Net(), "tt", 5, SHAPE, layers=layers)
    assert swapped(model) == {"body.0.conv": "cp", "body.1.0": "cp", "hidden": "tt"}
    assert model.body[0].conv.graph.ranks == {"r": 2}
    assert model.hidden.graph.ranks == {"r1": 5, "r2": 5, "r3": 5}
    assert [tuple(core.shape) for core in model.hidden.tensors()] == [(16, 5), (5, 18, 5), (5, 8, 5), (5, 8)]


def test_reference_ranks():
    # Convolutions: a third of the wider side, 32 // 3 (Tucker: a third of each side, rounded up); linear: 64 // 2.
    model = compress(Net(), "tt", "reference", SHAPE, layout="matrix")
    assert model.body[1][0].graph.ranks == {"r1": 10}
    assert model.hidden.graph.ranks == {"r1": 32}
    model = compress(Net(), "tucker", "reference", SHAPE)
    assert model.body[1][0].graph.ranks == {"r_i": 6, "r_o": 11}


def test_a_layers_own_format_goes_before_its_kinds():
    model = compress(Net(), "tt", 4, SHAPE, linear="ht", conv="cp", layers={"hidden": {"format": "tucker"}})
    assert swapped(model) == {"body.0.conv": "cp", "body.1.0": "cp", "hidden": "tucker"}


def test_settings_go_on_top_of_a_whole_configuration():
    model = compress(Net(), MethodConfig("tt", layout="matrix"), 4, SHAPE, layout="split")
    assert len(model.hidden.graph.cores) == 6
    with pytest.raises(ConfigError, match="colour"):
        compress(Net(), MethodConfig("tt"), 4, SHAPE, colour="red")


def test_a_layer_that_would_grow_stays_dense():
    # TT of 288 -> 64 at rank 60: 60 * (288 + 64) entries against 18,432; at rank 52 it still shrinks.
    assert "hidden" not in swapped(compress(Net(), "tt", 60, SHAPE, layout="matrix"))
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


@pytest.mark.parametrize("format", FACTORISED)
def test_a_tuned_model_computes_the_same(format: str):
    model, x = compress(Net(), format, 4, SHAPE, plan="measure"), torch.randn(4, *SHAPE)
    model.eval()
    expected, state, random = model(x), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.train()
    tune(model, x)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    layers = [layer for layer in model.modules() if isinstance(layer, Factorised)]
    assert all(layer.plan.path in layer.candidates for layer in layers)
    torch.testing.assert_close(model.eval()(x), expected, rtol=1e-4, atol=1e-5)


def test_tuning_keeps_the_fastest(monkeypatch: pytest.MonkeyPatch):
    model = compress(Net(), "tt", 4, SHAPE, plan="measure", layout="channels")
    layer = model.body[0].conv
    slow = {path: 1.0 + k for k, path in enumerate(reversed(layer.candidates))}  # the last candidate is the fastest
    monkeypatch.setattr(planning, "seconds", lambda step, device: slow.get(step.args[0].plan.path, 1.0))
    first = model.hidden.plan.path
    tune(model, torch.randn(2, *SHAPE))
    assert layer.plan.path == layer.candidates[-1]
    assert model.hidden.plan.path == first  # all alike: the model's choice stays


def test_plans_are_carried_over():
    model, other = (compress(Net(), "tucker", 4, SHAPE, plan=plan) for plan in ("dense", "chain"))
    assert plans(model) != plans(other)
    use_plans(other, json.loads(json.dumps(plans(model))))
    assert plans(model) == plans(other)
    assert other.hidden.plan.text == model.hidden.plan.text


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
    model = compress(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), format, 4, (5, 16), keep=[]).double()
    assert isinstance(model.linear1, FactorisedLinear)
    x = torch.randn(3, 5, 16, dtype=torch.double)
    model.eval()
    with torch.no_grad():
        fast = model(x)  # torch's own kernel, which is given linear1.weight
    torch.testing.assert_close(fast, model(x).detach())


REFUSED = [
    ("nonsense", 4, {}, "nonsense.*cp, dense, ht, tr, tt, tucker"),
    ("tt", 4, {"layout": "rows"}, "layer body.0.conv.*rows.*channels, matrix, split, paired"),
    ("tt", 4, {"kernel": "ajar"}, "layer body.0.conv.*ajar.*merged, separate, open"),
    ("tt", 4, {"kernel": "open", "layout": "channels"}, "layer body.0.conv.*open.*ht, tucker.*tt"),
    ("tt", 4, {"plan": "luck"}, "layer body.0.conv.*luck.*model, measure, contract, chain, dense"),
    ("tt", 4, {"init": "zeros"}, "layer body.0.conv.*zeros.*variance, orthogonal"),
    ("tt", 4, {"colour": "red"}, "colour.*layout"),
    ("tt", 4, {"layout": "split", "in_modes": [4, 5]}, "layer body.0.conv.*product 20.*16"),
    ("tt", 4, {"layout": "split", "in_modes": [4, 4]}, "layer hidden.*product 16.*288"),  # after two that fit
    ("tt", 4, {"layout": "paired", "factors": 1, "kernel": "open"}, "layer body.0.conv"),
    ("tt", 4, {"layout": "split", "factors": 0}, "factors"),
    ("tt", 4, {"layout": "split", "in_modes": [-4, -4]}, "in_modes"),
    ("tt", 4, {"layers": {"hidden": {"size": 3}}}, "layer hidden.*size.*rank"),
    ("tt", 4, {"layers": {"hidden": {"decay": "scaled"}}}, "layer hidden.*decay.*rank"),
    ("tt", 4, {"layers": {"hidden": {"in_modes": 288}}}, "layer hidden: method.layers.hidden.in_modes: .*list"),
    ("tt", 4, {"layers": {"hea*": {"rank": 4}}}, "method.layers: head stays dense"),
    ("tt", 4, {"layers": {"hidden": 4}}, "method.layers.hidden=4.*rank: 4"),
    ("tt", 4, {"layers": {"hiden": {"rank": 4}}}, "method.layers: no layer is named hiden; there are .*hidden"),
    ("tt", 4, {"keep": ["stem", "fc*"]}, r"arch.keep: no layer is named fc\*; there are stem"),
    ("tt", 4, {"layers": {"hidden": {"format": "nonsense"}}}, "layer hidden.*nonsense.*tucker"),
    ("tt", "many", {}, "many.*reference"),
    ("tt", 2.5, {}, "2.5"),
    ("tt", 0, {}, "rank.*0"),
    ("tt", -3, {}, "rank.*-3"),
    ("tt", True, {}, "rank.*True"),
]


@pytest.mark.parametrize(("method", "rank", "settings", "said"), REFUSED, ids=lambda v: str(v)[:40])
def test_bad_values_are_refused_in_one_line(method: str, rank: object, settings: dict, said: str):
    with pytest.raises(ConfigError, match=said) as error:
        compress(Net(), method, rank, SHAPE, **settings)
    assert "\n" not in str(error.value)


def test_a_refused_model_is_left_as_it_was():
    model = Net()
    with pytest.raises(ConfigError, match="layer hidden"):
        compress(model, "tt", 4, SHAPE, layout="split", in_modes=[4, 4])
    assert swapped(model) == {}


def test_an_unknown_format_is_refused_even_where_nothing_is_swapped():
    with pytest.raises(ConfigError, match=r"nonsense.*tucker"):
        compress(Net(), "nonsense", 4, SHAPE, keep=["*"])


@pytest.mark.parametrize("shape", [(3, 8), (1, 8, 8), (3, 2, 2), (8,)], ids=str)
def test_an_input_the_model_cannot_take(shape: tuple[int, ...]):
    with pytest.raises(ConfigError, match="input"):
        compress(Net(), "tt", 4, shape)


def test_a_model_that_objects_in_its_own_way():
    class Picky(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(ConfigError, match=r"cannot take an input of shape \(3, 8, 8\): AssertionError"):
        compress(Picky(), "tt", 4, SHAPE)


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


def test_types_follow_the_model():
    model = compress(Net().to(torch.bfloat16), "tucker", 4, SHAPE)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.randn(2, *SHAPE, dtype=torch.bfloat16)).dtype == torch.bfloat16


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


def test_integers_of_numpy_and_shapes_are_ranks():
    def sizes(rank: object, **own: object) -> list[dict[str, int]]:
        settings = {"layout": "matrix", "allow_larger": True, **own}
        model = compress(nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30)), "tt", rank, (30,), keep=[], **settings)
        return [layer.graph.ranks for layer in model]

    assert sizes(numpy.int64(4)) == sizes(Size(4)) == [{"r1": 4}] * 2
    for own in (numpy.int16(3), Size(3), "3"):
        assert sizes(4, layers={"1": {"rank": own, "init": "variance"}}) == [{"r1": 4}, {"r1": 3}]
    split = {"layout": "split", "in_modes": [5, 6], "out_modes": [30]}
    assert sizes(torch.Size([2, 7]), **split) == [{"r1": 2, "r2": 7}] * 2
