"""torch's recurrent layers with each weight as cores, against torch's own layer that holds the same weights."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from cases import FACTORISED, assert_close, layout_of
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.layers.kinds import PARTED, factorised
from tdcompress.layers.parted.recurrent import PartedRecurrent
from tdcompress.tensor.contraction.calls import Merge
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES, HIDDEN, STEPS, BATCH = 12, 8, 5, 3
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
SETTINGS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "deep lstm": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 5, "batch_first": True}),
    "gru": (nn.GRU, {"num_layers": 2, "bias": False}),
    "bidirectional gru": (nn.GRU, {"bidirectional": True, "batch_first": True}),
    "relu": (nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
}


def compressed(twin: nn.Module, format: str, **settings: Any) -> nn.RNNBase:
    settings = {"allow_larger": True, "keep": [], "plan": "chain", "rates": Rates(), **settings}
    settings = {"layout": layout_of(format, "matrix"), **settings}
    return tdcompress.compress(copy.deepcopy(twin), format, 3, (STEPS, FEATURES), **settings)


def torchs(ours: nn.RNNBase, twin: nn.RNNBase) -> nn.RNNBase:
    """A layer of torch's with the weights that the cores stand for, and the biases."""
    values = dict(ours.named_parameters())
    for name in twin.state_dict():
        if name.startswith("weight"):
            part = ours.get_submodule(name.removeprefix("weight_"))
            values[name] = part.to_dense() if isinstance(part, Factorised) else part.weight
    theirs = copy.deepcopy(twin)
    theirs.load_state_dict({name: values[name] for name in twin.state_dict()})
    return theirs


def flat(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, PackedSequence):
        return [outputs.data]
    return [outputs] if isinstance(outputs, Tensor) else [one for part in outputs for one in flat(part)]


def first_states(layer: nn.RNNBase, batch: int | None, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    lead = (count,) if batch is None else (count, batch)
    widths = [layer.proj_size or HIDDEN, HIDDEN][: 2 if isinstance(layer, nn.LSTM) else 1]
    states = tuple(torch.randn(*lead, width, generator=generator, dtype=torch.float64) for width in widths)
    return states if len(states) > 1 else states[0]


def inputs(layer: nn.RNNBase) -> dict[str, tuple[Any, Any]]:
    """Everything that torch takes: with states or without, packed in either order, one sequence alone."""
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    packed = pack_padded_sequence(x, torch.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False)
    given = x if layer.batch_first else x.transpose(0, 1)
    listed = {"listed": (given, list(first_states(layer, BATCH)))} if isinstance(layer, nn.LSTM) else {}
    return listed | {
        "plain": (given, None),
        "states": (given, first_states(layer, BATCH)),
        "packed": (packed, None),
        "packed, states": (packed, first_states(layer, BATCH)),
        "alone": (x[0], None),
        "alone, states": (x[0], first_states(layer, None)),
    }


@pytest.fixture(params=["steps", "layers", "kernel"])
def way(request, monkeypatch) -> str:
    """How passes are computed, whatever the cost model says."""
    monkeypatch.setattr(PartedRecurrent, "way", lambda self, training: request.param)
    return request.param


@pytest.mark.parametrize("format", FACTORISED)
@pytest.mark.parametrize("name", SETTINGS)
def test_outputs_and_states_are_torchs(name: str, format: str, way: str):
    torch.manual_seed(0)
    cls, settings = SETTINGS[name]
    twin = cls(FEATURES, HIDDEN, **settings).double()
    ours = compressed(twin, format)
    assert isinstance(ours, cls)
    assert len(factorised(ours)) == sum(key.startswith("weight") for key in twin.state_dict())
    theirs = torchs(ours, twin)
    for x, states in inputs(twin).values():
        for found, wanted in zip(flat(ours(x, states)), flat(theirs(x, states)), strict=True):
            assert_close(found, wanted)
    ours.eval()
    with torch.no_grad():
        for found, wanted in zip(flat(ours(x, states)), flat(theirs(x, states)), strict=True):
            assert_close(found, wanted)


@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_are_torchs(name: str, way: str):
    torch.manual_seed(0)
    cls, settings = SETTINGS[name]
    twin = cls(FEATURES, HIDDEN, **settings).double()
    ours = compressed(twin, "tt")
    theirs = torchs(ours, twin)
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64)
    for layer in (ours, theirs):
        sum((one * one.detach().cos()).sum() for one in flat(layer(x))).backward()
    for key, dense in theirs.named_parameters():
        if key.startswith("bias"):
            assert_close(getattr(ours, key).grad, dense.grad)
        else:  # the chain rule, from the gradient of the weight that the cores stand for
            part = ours.get_submodule(key.removeprefix("weight_"))
            wanted = torch.autograd.grad(part.to_dense(), part.tensors(), dense.grad)
            for core, gradient in zip(part.tensors(), wanted, strict=True):
                assert_close(core.grad, gradient)


@pytest.mark.parametrize(
    ("shape", "error"),
    [((0, BATCH, FEATURES), RuntimeError), ((FEATURES,), ValueError), ((STEPS, BATCH, 3), RuntimeError)],
)
def test_bad_inputs_are_refused_as_by_torch(shape, error, way):
    twin = nn.LSTM(FEATURES, HIDDEN)
    with pytest.raises(error) as theirs:
        twin(torch.zeros(shape))
    with pytest.raises(error) as ours:
        compressed(twin, "tt")(torch.zeros(shape))
    assert str(ours.value) == str(theirs.value)


def test_no_sequences(way):
    outputs, (state, _) = compressed(nn.LSTM(FEATURES, HIDDEN), "tt")(torch.zeros(STEPS, 0, FEATURES))
    assert outputs.shape == (STEPS, 0, HIDDEN) and state.shape == (1, 0, HIDDEN)


def test_dropout_between_layers_alone():
    torch.manual_seed(0)
    ours = compressed(nn.LSTM(FEATURES, HIDDEN, num_layers=2, dropout=0.5).double(), "tt")
    x = torch.randn(STEPS, BATCH, FEATURES, dtype=torch.float64)
    torch.manual_seed(1)
    first, (states, _) = ours(x)
    again, _ = ours(x)
    assert not torch.equal(first, again) and torch.equal(first[-1], states[-1])
    ours.eval()
    assert torch.equal(ours(x)[0], ours(x)[0])


def test_counted_by_hand():
    model = compressed(nn.LSTM(FEATURES, HIDDEN, proj_size=5), "tt")
    report = tdcompress.count(model, (STEPS, FEATURES))
    rows, rank = 4 * HIDDEN, 3
    sizes = {"ih_l0": (FEATURES, rows), "hh_l0": (5, rows), "hr_l0": (HIDDEN, 5)}
    assert {row["name"] for row in report["layers"]} == set(sizes)
    for row in report["layers"]:
        summed, new = sizes[row["name"]]
        assert row["parameters"] == rank * (summed + new)
        assert (row["macs"], row["dense_macs"]) == (STEPS * rank * (summed + new), STEPS * summed * new)
    assert report["parameters"] == sum(rank * (a + b) for a, b in sizes.values()) + 2 * rows
    assert report["dense_macs"] == tdcompress.count(nn.LSTM(FEATURES, HIDDEN, proj_size=5), (STEPS, FEATURES))["macs"]


def test_weights_are_put_together_once_a_pass(way, monkeypatch):
    ours = compressed(nn.LSTM(FEATURES, HIDDEN, num_layers=2), "tt", plan="dense")
    merges, once = [], Merge.__call__
    monkeypatch.setattr(Merge, "__call__", lambda merge, slots: (merges.append(merge), once(merge, slots))[1])
    ours(torch.randn(STEPS, BATCH, FEATURES))
    assert len(merges) == sum(len(part.plan.merges) for part in factorised(ours).values()) == 4


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_autocast(cls, way):
    torch.manual_seed(0)
    ours = compressed(cls(FEATURES, HIDDEN, num_layers=2), "tt")
    x = torch.randn(50, BATCH, FEATURES)
    exact = ours(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(x)[0]
        found.sum().backward()
    assert 0 < (found - exact).abs().max() < 0.02
    assert all(core.grad.dtype == torch.float32 for part in factorised(ours).values() for core in part.tensors())


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_bias_that_is_computed_counts_however_a_pass_is_computed(cls, way):
    layer = cls(FEATURES, HIDDEN).double()
    ours = compressed(layer, "tt")
    twin = torchs(ours, layer)
    for one in (ours, twin):
        prune.l1_unstructured(prune.l1_unstructured(one, "bias_ih_l0", 0.3), "bias_hh_l0", 0.3)
    x = torch.randn(STEPS, BATCH, FEATURES, dtype=torch.float64)
    assert_close(ours(x)[0], twin(x)[0])


class Tagger(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, 32, **settings)
        self.out = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def test_a_layer_of_which_nothing_is_held_is_torchs_again():
    model = Tagger()
    rnn, weight = model.rnn, model.rnn.weight_ih_l0
    tdcompress.compress(model, "tt", 3, (STEPS, FEATURES), keep=["rnn"])  # the layer's name, for all of its weights
    assert model.rnn is rnn and rnn.weight_ih_l0 is weight
    (row, _) = tdcompress.count(model, (STEPS, FEATURES))["layers"]
    assert (row["kind"], row["reason"]) == ("LSTM", "kept")
    with pytest.raises(ConfigError, match=r"there are rnn\.ih_l0, rnn\.hh_l0, out"):
        tdcompress.compress(model, "tt", 3, (STEPS, FEATURES), keep=["nothing"])
    assert model.rnn is rnn


def test_one_weight_alone():
    model = tdcompress.compress(Tagger(), "tt", 3, (STEPS, FEATURES), keep=["rnn.ih_l0", "out"])
    assert list(factorised(model)) == ["rnn.hh_l0"]
    assert {"rnn.ih_l0.weight", "rnn.bias_ih_l0", "rnn.hh_l0.cores.core1"} <= model.state_dict().keys()
    assert torch.equal(model.rnn.weight_ih_l0, model.rnn.ih_l0.weight)
    assert_close(model.rnn.weight_hh_l0, model.rnn.hh_l0.to_dense())


@pytest.mark.parametrize("keep_cores", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_folded(name: str, keep_cores: bool):
    cls, settings = SETTINGS[name]
    ours = compressed(cls(FEATURES, HIDDEN, **settings).double(), "tr")
    folded = tdcompress.fold(ours, (STEPS, FEATURES), keep_cores=keep_cores)
    assert isinstance(folded, cls) and not factorised(folded) and not hasattr(folded, "ih_l0")
    if not keep_cores:
        assert (
            type(folded) is cls and folded.state_dict().keys() == cls(FEATURES, HIDDEN, **settings).state_dict().keys()
        )
    else:
        assert sum(p.numel() for p in folded.parameters()) == sum(p.numel() for p in ours.parameters())
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64)
    for found, wanted in zip(flat(folded(x)), flat(ours(x)), strict=True):
        assert_close(found, wanted)


def test_copies_files_and_types():
    ours = compressed(nn.GRU(FEATURES, HIDDEN), "tt", plan="dense")
    x = torch.randn(STEPS, BATCH, FEATURES)
    wanted = ours(x)[0]
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x)[0], wanted)
    assert ours.double()(x.double())[0].dtype == torch.float64
    ours.flatten_parameters()  # torch's, which people call before a pass


def test_a_budget_and_a_switch_in_training():
    torch.manual_seed(0)
    model = Tagger()
    dense = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ranks = tdcompress.StableRanks.of(model, 3)
    assert set(ranks.scales) == {"rnn.ih_l0", "rnn.hh_l0"}
    model(torch.randn(STEPS, BATCH, FEATURES)).sum().backward()
    optimizer.step()
    ranks.measure(model)
    tdcompress.switch(model, optimizer, "tt", "3x", (STEPS, FEATURES))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(dense / 3, rel=0.02)
    assert set(optimizer.param_groups[0]["params"]) == set(model.parameters())
    model(torch.randn(STEPS, BATCH, FEATURES)).sum().backward()
    optimizer.step()


class OwnForward(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:
        return super().forward(2 * x, hx)


def test_what_computes_something_else_is_left():
    model = nn.Sequential(OwnForward(FEATURES, HIDDEN))
    with pytest.raises(ConfigError, match=r"\(0: OwnForward redefines forward of LSTM\)"):
        tdcompress.compress(model, "tt", 3, (STEPS, FEATURES), keep=[])
    assert type(model[0]) is OwnForward
    (row,) = tdcompress.count(model, (STEPS, FEATURES))["layers"]
    assert row["reason"] == "OwnForward redefines forward of LSTM"
    tdcompress.hold(OwnForward, nn.LSTM)  # not true, but nobody can know
    try:
        tdcompress.compress(model, "tt", 3, (STEPS, FEATURES), keep=[])
        assert list(factorised(model)) == ["0.ih_l0", "0.hh_l0"]
    finally:
        del PARTED[OwnForward]
