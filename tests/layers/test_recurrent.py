"""Recurrent layers against torch's own, and what they hold and cost, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import assert_close
from torch import Tensor, nn

from tdcompress.compression.spec import build_graph
from tdcompress.compression.survey.counts import count
from tdcompress.compression.survey.plans import tune
from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig, MethodConfig
from tdcompress.layers.base import Factorised
from tdcompress.layers.recurrent import GRU, LSTM
from tdcompress.models.build import build
from tdcompress.models.recurrent import RECURRENT, Steps
from tdcompress.tensor.build import with_rank
from tdcompress.tensor.contraction.calls import Merge
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.rank import parse

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES, HIDDEN, STEPS, BATCH = 12, 8, 5, 3
OURS = {"lstm": LSTM, "gru": GRU}
THEIRS = {"lstm": nn.LSTM, "gru": nn.GRU}


def weight_of(layer: nn.Module) -> Tensor:
    return layer.to_dense() if isinstance(layer, Factorised) else layer.weight


def twin(rnn: nn.Module, kind: str) -> nn.RNNBase:
    """Torch's recurrent layer of the same weights and biases."""
    theirs = THEIRS[kind](FEATURES, HIDDEN, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(weight_of(rnn.input))
        theirs.weight_hh_l0.copy_(weight_of(rnn.hidden))
        theirs.bias_ih_l0.copy_(rnn.input.bias)
        theirs.bias_hh_l0.copy_(rnn.hidden.bias)
    return theirs


def compressed(rnn: nn.Module, format: str, **settings: Any) -> nn.Module:
    """The layer with both of its weights as cores."""
    settings = {"factors": 2, "allow_larger": True, "keep": [], **settings}
    return compress(rnn, format, 3, (STEPS, FEATURES), **settings)


def test_every_recurrent_arch_is_tested_here():
    assert RECURRENT == OURS


@pytest.mark.parametrize("kept", [[], ["hidden"], ["input"]], ids=str)
@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize("kind", OURS)
def test_outputs_and_gradients_are_torchs(kind, format, kept):
    torch.manual_seed(0)
    ours = compressed(OURS[kind](FEATURES, HIDDEN).double(), format, keep=kept)
    assert isinstance(ours.input, Factorised) == (FORMATS[format].factorised and kept != ["input"])
    assert isinstance(ours.hidden, Factorised) == (FORMATS[format].factorised and kept != ["hidden"])
    theirs = twin(ours, kind)
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    towards = torch.randn(BATCH, STEPS, HIDDEN, dtype=torch.float64)
    found, (expected, _) = ours(x), theirs(other)
    assert_close(found, expected)
    (found * towards).sum().backward()
    (expected * towards).sum().backward()
    assert_close(x.grad, other.grad)
    for layer, suffix in ((ours.input, "ih_l0"), (ours.hidden, "hh_l0")):
        gradient = getattr(theirs, f"weight_{suffix}").grad
        assert_close(layer.bias.grad, getattr(theirs, f"bias_{suffix}").grad)
        if isinstance(layer, Factorised):  # the chain rule, from the gradient of the weight that the cores stand for
            cores = layer.tensors()
            for core, wanted in zip(cores, torch.autograd.grad(layer.to_dense(), cores, gradient), strict=True):
                assert_close(core.grad, wanted)
        else:
            assert_close(layer.weight.grad, gradient)


@pytest.mark.parametrize("format", sorted(name for name, format in FORMATS.items() if format.factorised))
@pytest.mark.parametrize("kind", OURS)
def test_what_is_merged_of_the_cores_is_merged_once_a_pass(kind, format, monkeypatch):
    rnn = compressed(OURS[kind](FEATURES, HIDDEN), format, plan="dense")
    merges, once = [], Merge.__call__
    monkeypatch.setattr(Merge, "__call__", lambda merge, slots: (merges.append(merge), once(merge, slots))[1])
    rnn(torch.randn(BATCH, STEPS, FEATURES))
    assert sorted(map(id, merges)) == sorted(map(id, (*rnn.input.plan.merges, *rnn.hidden.plan.merges)))
    assert rnn.hidden.plan.merges


@pytest.mark.parametrize("kind", OURS)
def test_a_state_does_not_look_ahead(kind):
    torch.manual_seed(0)
    rnn = OURS[kind](FEATURES, HIDDEN)
    x = torch.randn(BATCH, STEPS, FEATURES)
    changed = x.clone()
    changed[:, 3] += 1
    before, after = rnn(x), rnn(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("layout", ["split", "paired"])
@pytest.mark.parametrize("kind", OURS)
def test_layouts_with_the_gates_on_the_first_modes(kind, layout):
    gates = {"lstm": 4, "gru": 3}[kind]
    settings = {"layout": layout, "in_modes": [3, 4], "out_modes": [2 * gates, 4]}
    ours = compressed(OURS[kind](FEATURES, HIDDEN).double(), "tt", keep=["hidden"], **settings)
    assert ours.input.graph.sizes["o1"] == 2 * gates
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64)
    assert_close(ours(x), twin(ours, kind)(x)[0])


# What autocast, the compiler and an exporter make of it


@pytest.mark.parametrize("format", ["dense", "tt"])
@pytest.mark.parametrize("kind", OURS)
def test_states_stay_float_under_autocast(kind, format):
    torch.manual_seed(0)
    rnn = compressed(OURS[kind](FEATURES, HIDDEN), format)
    x = torch.randn(BATCH, 50, FEATURES)
    exact = rnn(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = rnn(x)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.02


@pytest.mark.parametrize("kind", OURS)
def test_it_compiles_whole_and_exports(kind):
    torch.manual_seed(0)
    model = compress(build(ArchConfig(kind, hidden=8), 2, 3, 3), "tt", 3, (2, 3, 3), allow_larger=True).eval()
    images = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(images), model(images))
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


def test_plans_by_measurement_with_both_weights_as_cores():
    torch.manual_seed(0)
    rnn = compressed(LSTM(FEATURES, HIDDEN).double(), "tt", plan="measure")
    x = torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64)
    before = rnn(x)
    tune(rnn, x)
    assert_close(rnn(x), before)


# The networks


def test_rows_and_frames_as_time_steps():
    images = torch.arange(2 * 6 * 4 * 4.0).view(2, 6, 4, 4)
    rows = Steps(None)(images)
    assert rows.shape == (2, 4, 24)
    assert torch.equal(rows[1, 2], torch.cat([images[1, channel, 2] for channel in range(6)]))
    frames = Steps(2)(images)
    assert frames.shape == (2, 2, 48)
    assert torch.equal(frames[1, 1], images[1, 3:].flatten())


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_networks_counted_by_hand(kind, gates):
    model = build(ArchConfig(kind, hidden=20, width=0.5), 3, 7, 12)
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    assert names == ["rnn.input", "rnn.hidden", "fc"]
    sizes = [gates * 10 * (3 * 12 + 1), gates * 10 * (10 + 1), 10 * 7 + 7]
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(sizes)
    assert model(torch.randn(2, 3, 12, 12)).shape == (2, 7)
    clips = build(ArchConfig(kind, hidden=10, frames=6), 18, 7, 12)
    assert clips.rnn.input.in_features == 3 * 12 * 12
    assert clips(torch.randn(2, 18, 12, 12)).shape == (2, 7)


def test_only_the_last_state_is_classified():
    model = build(ArchConfig("lstm", hidden=4), 1, 3, 6)
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(model(images), model.fc(model.rnn(model.steps(images))[:, -1]))


def test_frames_that_the_channels_do_not_have():
    with pytest.raises(ConfigError, match=r"arch.frames=4 does not divide the 18 channels .* dataset.frames"):
        build(ArchConfig("lstm", frames=4), 18, 7, 12)


# Counts


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_macs_count_every_time_step(kind, gates):
    model = build(ArchConfig(kind, hidden=16), 1, 10, 28)
    report = count(model, (1, 28, 28))
    rows = gates * 16
    dense = [28 * 28 * rows, 28 * 16 * rows, 160]  # 28 rows of 28 pixels, 28 states of 16
    assert [layer["macs"] for layer in report["layers"]] == dense
    model = compress(model, "tt", 4, (1, 28, 28), layout="matrix", plan="chain")
    report = count(model, (1, 28, 28))
    assert [layer["format"] for layer in report["layers"]] == ["tt", "tt", "dense"]
    assert [layer["macs"] for layer in report["layers"]] == [28 * 4 * (28 + rows), 28 * 4 * (16 + rows), 160]
    assert report["dense_macs"] == sum(dense)


def test_a_budget_of_macs_counts_every_time_step():
    model = compress(build(ArchConfig("lstm", hidden=32), 1, 10, 28), "tt", "macs:0.4", (1, 28, 28), layout="matrix")
    report = count(model, (1, 28, 28))
    assert report["dense_macs"] == 28 * 28 * 128 + 28 * 32 * 128 + 320
    assert report["macs"] == pytest.approx(0.4 * report["dense_macs"], rel=0.02)


# The published sizes of an LSTM of 256 units over frames of 160 x 120 x 3 = 57,600 numbers

FRAME, UNITS = 57_600, 256


def test_the_published_tt_lstm():
    rnn = LSTM(FRAME, UNITS)
    modes = {"layout": "paired", "in_modes": [8, 20, 20, 18], "out_modes": [16, 4, 4, 4]}  # 4 4 4 4, gates on the first
    compress(rnn, "tt", 4, (1, FRAME), keep=["hidden"], init="variance", plan="chain", **modes)
    (layer, _) = count(rnn, (1, FRAME))["layers"]
    assert layer["dense_parameters"] == FRAME * 4 * UNITS == 58_982_400
    # 8*16*4 + 4*20*4*4 + 4*20*4*4 + 4*18*4 (Yang et al. 2017, table 1)
    assert layer["parameters"] == 512 + 1_280 + 1_280 + 288 == 3_360
    assert layer["dense_parameters"] // layer["parameters"] == 17_554
    assert rnn(torch.zeros(2, 3, FRAME)).shape == (2, 3, UNITS)


@pytest.mark.parametrize(
    ("format", "layout", "in_modes", "out_modes", "rank", "wide", "even", "published"),
    [
        # 25 * (4+2+5+8+6+5+3+2 + 16+4+2+4+2), and with r0 = 10 the first and last core twice: + 25 * (4 + 2)
        ("tr", "split", [4, 2, 5, 8, 6, 5, 3, 2], [16, 4, 2, 4, 2], 5, {"r0": 10}, 1_575, 1_725),
        # leaves 4 * (8*16 + 10*4 + 10*2 + 9*4 + 8*2) = 960, and 3 * 4*4*4 + 4*4 above them; or with inner bonds of 5
        # 4*4*5 + 5*4*5 + 4*4*5 + 5*5
        (
            "ht",
            "paired",
            [8, 10, 10, 9, 8],
            [16, 4, 2, 4, 2],
            4,
            dict.fromkeys(("r_l", "r_r", "r_ll"), 5),
            1_168,
            1_245,
        ),
    ],
)
def test_the_published_counts_of_other_formats(format, layout, in_modes, out_modes, rank, wide, even, published):
    shape = (4 * UNITS, FRAME)
    method = MethodConfig(format, layout=layout, in_modes=in_modes, out_modes=out_modes)
    graph = with_rank(build_graph(shape, FORMATS[format], method), FORMATS[format], parse(rank), shape)
    assert graph.parameters == even
    sizes = [wide.get(bond, rank) for bond in graph.bonds]
    assert with_rank(graph, FORMATS[format], parse(sizes), shape).parameters == published
