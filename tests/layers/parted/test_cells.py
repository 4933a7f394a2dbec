"""How recurrent layers are computed, and what their networks hold and cost, counted by hand."""

from __future__ import annotations

import pytest
import torch
from cases import assert_close
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tdcompress.compression.export.fold import fold
from tdcompress.compression.spec import build_graph
from tdcompress.compression.survey.counts import count
from tdcompress.compression.survey.plans import tune
from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig, MethodConfig
from tdcompress.models.build import build
from tdcompress.models.recurrent import RECURRENT, Steps
from tdcompress.tensor.build import with_rank
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.rank import parse

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES, HIDDEN, STEPS, BATCH = 12, 8, 5, 3
GATES = {"lstm": 4, "gru": 3}


def test_every_recurrent_arch_is_tested_here():
    assert RECURRENT == {"lstm": nn.LSTM, "gru": nn.GRU}
    assert RECURRENT.keys() == GATES.keys()


@pytest.mark.parametrize("layout", ["split", "paired"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_layouts_with_the_gates_on_the_first_modes(kind, layout):
    settings = {"layout": layout, "in_modes": [3, 4], "out_modes": [2 * GATES[kind], 4], "allow_larger": True}
    layer = RECURRENT[kind](FEATURES, HIDDEN).double()
    ours = compress(layer, "tt", 3, (STEPS, FEATURES), keep=["hh_l0"], **settings)
    assert ours.ih_l0.graph.sizes["o1"] == 2 * GATES[kind]
    x = torch.randn(STEPS, BATCH, FEATURES, dtype=torch.float64)
    assert_close(ours(x)[0], fold(ours, (STEPS, FEATURES))(x)[0])


# What the compiler, an exporter and measured plans make of it


@pytest.mark.parametrize("kind", RECURRENT)
def test_it_compiles_and_exports(kind):
    torch.manual_seed(0)
    model = compress(build(ArchConfig(kind, hidden=8), 2, 3, 3), "tt", 3, (2, 3, 3), allow_larger=True).eval()
    images = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(images), model(images))
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))


@pytest.mark.parametrize("way", ["steps", "layers", "kernel"])
@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_it_exports_for_any_batch(cls, settings, way, monkeypatch):
    torch.manual_seed(0)
    layer = cls(FEATURES, HIDDEN, batch_first=True, **settings)
    ours = compress(layer, "tt", 3, (STEPS, FEATURES), keep=[], allow_larger=True).eval()
    monkeypatch.setattr(type(ours), "way", lambda *_: way)
    shown, other = torch.randn(4, STEPS, FEATURES), torch.randn(BATCH, STEPS, FEATURES)
    program = torch.export.export(ours, (shown,), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.testing.assert_close(program.module()(other)[0], fold(ours, (STEPS, FEATURES), plan="dense")(other)[0])


def test_plans_by_measurement_with_both_weights_as_cores():
    torch.manual_seed(0)
    settings = {"keep": [], "allow_larger": True, "plan": "measure"}
    rnn = compress(nn.LSTM(FEATURES, HIDDEN).double(), "tt", 3, (STEPS, FEATURES), **settings)
    x = torch.randn(STEPS, BATCH, FEATURES, dtype=torch.float64)
    before = rnn(x)[0]
    tune(rnn, x)
    assert_close(rnn(x)[0], before)


# How a pass is computed


@pytest.mark.parametrize(
    ("cls", "features", "hidden", "steps", "rank", "rates", "way"),
    [
        # Small steps, of which calls take the time; a small weight is put together in none.
        (nn.LSTM, 12, 8, 50, 32, Rates(), "kernel"),
        # The same, but it takes longer to put a wide weight together than to contract its inputs.
        (nn.LSTM, 4096, 8, 50, 1, Rates(), "layers"),
        # Calls take no time, reading and writing does.
        (nn.LSTM, 64, 512, 2, 1, Rates(memory=1e8, call=1e-9), "steps"),
        # The CPU's own steps of it are no faster.
        (nn.GRU, 64, 512, 50, 1, Rates(call=1e-9), "steps"),
    ],
)
def test_the_cost_model_chooses_how_a_pass_is_computed(cls, features, hidden, steps, rank, rates, way):
    settings = {"keep": [], "rates": rates, "batch_size": 1, "layout": "matrix", "allow_larger": True}
    layer = cls(features, hidden)
    ours = compress(layer, "tt", rank, (steps, features), init="variance", **settings)
    assert ours.way(training=True) == way
    plans = {row["name"]: row["plan"] for row in count(ours, (steps, features))["layers"]}
    assert [plans[name].count("linear") for name in ("ih_l0", "hh_l0")] == {
        "kernel": [1, 1],
        "layers": [2, 1],
        "steps": [2, 2],
    }[way]


# The networks


def test_rows_and_frames_as_time_steps():
    images = torch.arange(2 * 6 * 4 * 4.0).view(2, 6, 4, 4)
    rows = Steps(None)(images)
    assert rows.shape == (2, 4, 24)
    assert torch.equal(rows[1, 2], torch.cat([images[1, channel, 2] for channel in range(6)]))
    frames = Steps(2)(images)
    assert frames.shape == (2, 2, 48)
    assert torch.equal(frames[1, 1], images[1, 3:].flatten())


@pytest.mark.parametrize(("kind", "gates"), GATES.items())
def test_networks_counted_by_hand(kind, gates):
    model = build(ArchConfig(kind, hidden=20, width=0.5), 3, 7, 12)
    assert [row["name"] for row in count(model, (3, 12, 12))["layers"]] == ["rnn", "fc"]
    sizes = [gates * 10 * (3 * 12 + 1), gates * 10 * (10 + 1), 10 * 7 + 7]
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(sizes)
    assert model(torch.randn(2, 3, 12, 12)).shape == (2, 7)
    clips = build(ArchConfig(kind, hidden=10, frames=6), 18, 7, 12)
    assert clips.rnn.input_size == 3 * 12 * 12
    assert clips(torch.randn(2, 18, 12, 12)).shape == (2, 7)


def test_only_the_last_state_is_classified():
    model = build(ArchConfig("lstm", hidden=4), 1, 3, 6)
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(model(images), model.fc(model.rnn(model.steps(images))[0][:, -1]))


def test_frames_that_the_channels_do_not_have():
    with pytest.raises(ConfigError, match=r"arch.frames=4 does not divide the 18 channels .* dataset.frames"):
        build(ArchConfig("lstm", frames=4), 18, 7, 12)


# Counts


@pytest.mark.parametrize(("kind", "gates"), GATES.items())
def test_macs_count_every_time_step(kind, gates):
    model = build(ArchConfig(kind, hidden=16), 1, 10, 28)
    report = count(model, (1, 28, 28))
    rows = gates * 16
    dense = [28 * 28 * rows, 28 * 16 * rows, 160]  # 28 rows of 28 pixels, 28 states of 16
    assert [layer["macs"] for layer in report["layers"]] == [dense[0] + dense[1], dense[2]]
    model = compress(model, "tt", 4, (1, 28, 28), layout="matrix", plan="chain")
    report = count(model, (1, 28, 28))
    assert [layer["format"] for layer in report["layers"]] == ["tt", "tt", "dense"]
    assert [layer["macs"] for layer in report["layers"]] == [28 * 4 * (28 + rows), 28 * 4 * (16 + rows), 160]
    assert report["dense_macs"] == sum(dense)


@pytest.mark.parametrize("both", [False, True])
def test_macs_are_those_of_the_products_with_inputs(both):
    model = nn.Sequential(nn.GRU(256, 24, batch_first=True, bidirectional=both))
    compress(model, "tt", 8, (20, 256))
    assert model[0].way(training=True) == "layers"
    done = []
    for batch in (2, 5):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(batch, 20, 256))
        done.append(counter.get_total_flops() // 2)
    assert count(model, (20, 256))["macs"] == (done[1] - done[0]) / 3


def test_a_budget_of_macs_counts_every_time_step():
    model = compress(build(ArchConfig("lstm", hidden=32), 1, 10, 28), "tt", "macs:0.4", (1, 28, 28), layout="matrix")
    report = count(model, (1, 28, 28))
    assert report["dense_macs"] == 28 * 28 * 128 + 28 * 32 * 128 + 320
    assert report["macs"] == pytest.approx(0.4 * report["dense_macs"], rel=0.02)


# The published sizes of an LSTM of 256 units over frames of 160 x 120 x 3 = 57,600 numbers

FRAME, UNITS = 57_600, 256


def test_the_published_tt_lstm():
    rnn = nn.LSTM(FRAME, UNITS)
    modes = {"layout": "paired", "in_modes": [8, 20, 20, 18], "out_modes": [16, 4, 4, 4]}  # 4 4 4 4, gates on the first
    rnn = compress(rnn, "tt", 4, (1, FRAME), keep=["hh_l0"], init="variance", plan="chain", **modes)
    (layer, _) = count(rnn, (1, FRAME))["layers"]
    assert layer["dense_parameters"] == FRAME * 4 * UNITS == 58_982_400
    # 8*16*4 + 4*20*4*4 + 4*20*4*4 + 4*18*4 (Yang et al. 2017, table 1)
    assert layer["parameters"] == 512 + 1_280 + 1_280 + 288 == 3_360
    assert layer["dense_parameters"] // layer["parameters"] == 17_554
    assert rnn(torch.zeros(3, 2, FRAME))[0].shape == (3, 2, UNITS)


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


@pytest.mark.parametrize("value", [torch.zeros(96, 24), nn.Parameter(torch.zeros(96, 24))], ids=["tensor", "parameter"])
def test_weights_are_read_and_not_written(value: torch.Tensor):
    rnn = compress(nn.LSTM(24, 24), "tt", 3, (5, 24), keep=["ih_l0"])
    with pytest.raises(AttributeError, match="a weight held as cores cannot be set: write to the cores"):
        rnn.weight_hh_l0 = value
    assert "weight_hh_l0" not in vars(rnn) and rnn.weight_hh_l0.shape == (96, 24)
    if isinstance(value, nn.Parameter):  # of one that is dense
        rnn.weight_ih_l0 = value
        assert rnn.ih_l0.weight is rnn.weight_ih_l0 is value and set(rnn._parameters) == {"bias_ih_l0", "bias_hh_l0"}
