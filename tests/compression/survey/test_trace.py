"""MACs of every kind of layer, against torch's own counter and against counts done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tdcompress
from tdcompress.compression.survey.inputs import Examples
from tdcompress.compression.survey.report import Report
from tdcompress.compression.survey.trace import trace

pytestmark = pytest.mark.usefixtures("one_thread")


class Tokens(nn.Module):
    """Positions in a table for the numbers that it is given, as many for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.abs().long().clamp(max=10))


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(4, 4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x, x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.steps = kind(5, 7, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)[0]


class Functional(nn.Module):
    """A weight that no layer holds, and one that is normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.first.T) @ (self.second / self.second.norm()).T


COUNTED = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), padding="same", groups=2), (4, 7, 5)),
    "conv3d": (nn.Conv3d(4, 6, 2, dilation=2), (4, 5, 6, 7)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), (4, 9)),
    "transposed2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 6)),
    "linear": (nn.Linear(4, 6), (3, 5, 4)),
    "functional": (Functional(), (4,)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_convolutions_and_products_as_torch_counts_them(name: str):
    model, shape = COUNTED[name]
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *shape))
    report = tdcompress.count(model, shape)
    assert report["macs"] == report["dense_macs"] == counter.get_total_flops() / 2 > 0
    assert report["activation_macs"] == 0


STEPS, GATES = 9, {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers(kind: type[nn.RNNBase]):
    report = tdcompress.count(Recurrent(kind), (STEPS, 5))
    assert report["macs"] == STEPS * GATES[kind] * 7 * (5 + 7)
    (row,) = report["layers"]
    assert (row["name"], row["kind"], row["reason"]) == (
        "steps",
        kind.__name__,
        None,
    )
    assert row["parameters"] == GATES[kind] * 7 * (5 + 7)  # biases are in the whole's count only
    assert report["parameters"] == row["parameters"] + 2 * GATES[kind] * 7


def test_a_recurrent_layer_of_two_layers_two_directions_and_a_projection():
    report = tdcompress.count(Recurrent(nn.LSTM, num_layers=2, bidirectional=True, proj_size=3), (STEPS, 5))
    first, second = 4 * 7 * (5 + 3) + 3 * 7, 4 * 7 * (6 + 3) + 3 * 7
    assert report["macs"] == 2 * STEPS * (first + second)


def test_attention():
    report = tdcompress.count(Attention().eval(), (STEPS, 8))
    assert report["macs"] == STEPS * 8 * (3 * 8) + STEPS * 8 * 8
    assert report["activation_macs"] == 2 * (2 * STEPS * STEPS * 4)  # two heads of four, scores and what they weigh
    assert [row["name"] for row in report["layers"]] == ["heads", "heads.out_proj"]
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    whole = tdcompress.count(layer, (STEPS, 8))
    assert whole["macs"] == report["macs"] + 2 * STEPS * 8 * 16
    assert whole["activation_macs"] == report["activation_macs"]


def test_lookups_and_bilinear_layers(capsys: pytest.CaptureFixture[str]):
    report = tdcompress.count(Tokens(), (STEPS,))
    assert (report["parameters"], report["macs"]) == (88, 0)
    print(Report(report))
    assert "nan" not in capsys.readouterr().out
    assert tdcompress.count(Pairs(), (3, 4))["macs"] == 3 * 6 * 4 * 4


def test_a_model_without_parameters():
    report = tdcompress.count(nn.Flatten(), (3, 4))
    assert (report["parameters"], report["compression_ratio"], report["layers"]) == (0, 1.0, [])
    print(Report(report))


def test_products_of_parameters_alone_are_not_the_inputs():
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.a @ self.b)

    assert tdcompress.count(Product(), (4,))["macs"] == 24


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_counting_inside_of_what_infers(mode):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    products = nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoderLayer(16, 2, 16, batch_first=True))
    with mode():
        assert tdcompress.count(model, (3, 8, 8))["macs"] == 8 * 27 * 36 + 2880
        counted = tdcompress.count(products, (5, 16))
        held = tdcompress.compress(
            nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), "tt", "macs:0.5", (64,), keep=[]
        )
    outside = tdcompress.count(products, (5, 16))
    assert {key: counted[key] for key in ("macs", "activation_macs")} == {
        key: outside[key] for key in ("macs", "activation_macs")
    }
    assert outside["activation_macs"] == 2 * 5 * 5 * 16 and tdcompress.count(held, (64,))["macs"] <= 64 * 64 * 1.02


def test_counting_changes_nothing():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2)
    ).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    trace(model, Examples.of(model, (3, 6, 6)))
    assert torch.equal(torch.get_rng_state(), state) and torch.backends.mha.get_fastpath_enabled() == fast
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "write",
    [
        lambda weight: weight.clamp_(-1, 1),
        lambda weight: weight.detach().renorm_(2, 0, 1.0),
        lambda weight: weight.data[0].mul_(1.0),
        lambda weight: torch._foreach_mul_([weight], 1.0),
        lambda weight: torch.mul(weight, 1.0, out=weight.data),
    ],
    ids=["in place", "detached", "a part", "of a list", "out"],
)
@torch.no_grad()
def test_a_layer_stays_dense_whose_weight_the_model_writes_to(write):
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            write(self.first.weight)
            self.first.bias.mul_(1.0)
            (2 * self.second.weight).add_(self.second.bias)
            return self.second(self.first(x).relu_())

    model = tdcompress.compress(Clamped(), "tt", 4, (64,), keep=())
    assert type(model.first) is nn.Linear and type(model.second) is not nn.Linear
    assert "the model writes to its weight while it computes" in str(tdcompress.report(model))
