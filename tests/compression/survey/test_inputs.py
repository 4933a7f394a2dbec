"""What a model may be shown, what it is afterwards, and what is said where it cannot be compressed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import tdcompress
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


class Two(nn.Module):
    """Two inputs, one of tokens; a layer is called twice, by keyword, another one never."""

    def __init__(self):
        super().__init__()
        self.tokens, self.image = nn.Embedding(10, 16), nn.Conv2d(8, 16, 3)
        self.norm, self.drop = nn.BatchNorm2d(16), nn.Dropout(0.5)
        self.mix, self.unused, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, tokens: Tensor, image: Tensor, scale: float = 1.0) -> Tensor:
        seen = self.norm(self.image(image)).mean((2, 3))
        return self.out(self.drop(self.mix(input=self.mix(input=self.tokens(tokens).mean(1) + seen)))) * scale


def shown(batch: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randint(10, (batch, 5)), torch.randn(batch, 8, 6, 6)


AS = {
    "tuple": lambda tokens, image: (tokens, image),
    "list": lambda tokens, image: [tokens, image, 2.0],
    "keywords": lambda tokens, image: {"image": image, "tokens": tokens, "scale": 2.0},
}


@pytest.mark.parametrize("kind", AS)
def test_several_inputs(kind: str):
    model = tdcompress.compress(Two(), "tt", 3, example_inputs=AS[kind](*shown()), keep=["out", "tokens"], init="fit")
    assert list(factorised(model)) == ["image", "mix"]
    assert model.eval()(*shown(3)).shape == (3, 4)
    counts = tdcompress.count(model, example_inputs=AS[kind](*shown()))
    macs = {layer["name"]: layer["dense_macs"] for layer in counts["layers"]}
    assert macs["image"] == 16 * 8 * 9 * 4 * 4 and macs["mix"] == 2 * 16 * 16  # called twice
    twice = tdcompress.count(model, example_inputs=AS[kind](*shown(2)))
    assert twice["dense_macs"] == 2 * counts["dense_macs"]
    folded = tdcompress.fold(model, example_inputs=AS[kind](*shown()))
    given = shown(2)
    torch.testing.assert_close(folded(*given), model(*given), rtol=1e-4, atol=1e-5)


def test_one_tensor_is_what_its_shape_is():
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 4))

    by_shape = tdcompress.compress(net(), "tt", 3, (8, 6, 6))
    torch.manual_seed(1)
    by_example = tdcompress.compress(net(), "tt", 3, example_inputs=torch.rand(1, 8, 6, 6))
    assert tdcompress.count(by_shape, (8, 6, 6)) == tdcompress.count(by_example, example_inputs=torch.rand(1, 8, 6, 6))
    assert by_shape[2].planner == by_example[2].planner  # for a hundred images
    batch = tdcompress.compress(net(), "tt", 3, example_inputs=torch.rand(7, 8, 6, 6))
    assert batch[2].planner.batch_size == 1 and batch[2].planner.input_shape == (7, 16, 4, 4)


def test_examples_that_the_model_writes_into_stay_as_they_are():
    given = torch.randn(2, 16)
    before = given.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(16, 16))
    for inputs in (given, (given,), {"input": given}):
        tdcompress.count(model, example_inputs=inputs)
    assert torch.equal(given, before)


def test_it_leaves_no_trace():
    model = Two().train()
    model.drop.eval()
    model.mix.weight.requires_grad_(False)
    calls = []
    model.mix.register_forward_hook(lambda layer, args, out: calls.append("after"))
    model.mix.register_forward_pre_hook(lambda layer, args: calls.append("before"))
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    tdcompress.count(model, example_inputs=shown())
    expected = torch.manual_seed(3) and shown() and torch.rand(3)
    torch.manual_seed(3)
    tdcompress.count(model, example_inputs=shown())
    assert torch.equal(torch.rand(3), expected)  # as if nothing had drawn
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training and not model.drop.training and not model.mix.weight.requires_grad
    assert len(model.mix._forward_hooks) == len(model.mix._forward_pre_hooks) == 1


class Keeping(nn.Module):
    """Keeps statistics in evaluation mode, too, and names a layer that is called with images of two sizes."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(16, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        seen = nn.functional.batch_norm(x, self.mean, torch.ones(8), training=True)
        return self.head(self.conv(seen).mean((2, 3)) + self.conv(seen[..., ::2, ::2]).mean((2, 3)))


def test_statistics_that_are_kept_in_any_mode_stay_and_two_shapes_count_twice():
    images = torch.randn(2, 8, 6, 6) + 5
    held = tdcompress.compress(Keeping(), "tt", 3, example_inputs=images, keep=["head"], init="fit")
    assert held.calls == 0 and not held.mean.any()
    (conv, _) = tdcompress.report(held).counts["layers"]
    assert conv["dense_macs"] == 2 * 16 * 8 * 9 * (36 + 9)
    plain = tdcompress.fold(held, example_inputs=images, plan="dense")
    for size in (6, 9):  # one that nobody planned for
        given = torch.randn(2, 8, size, size)
        torch.testing.assert_close(held(given), plain(given), rtol=1e-4, atol=1e-5)


class Caching(nn.Module):
    """Gathers what follows of its weights once while it only infers, as timm's LeViT does, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.layer, self.bias = nn.Linear(16, 16), nn.Parameter(torch.zeros(16))
        self.cache, self.sizes, self.calls = {}, [1], 0
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.last, self.mean = self.calls + 1, x, self.mean + 1
        self.sizes.append(len(x))
        bias = self.bias * 2 if self.training else self.cache.setdefault("bias", self.bias * 2)
        return self.layer(x) + bias


def test_what_modules_keep_of_a_pass_is_not_kept_of_the_trace():
    model = Caching()
    cache, sizes, mean = model.cache, model.sizes, model.mean
    tdcompress.compress(model, "tt", 2, (16,), keep=[])
    assert model.calls == 0 and not hasattr(model, "last") and model.sizes is sizes == [1]
    assert model.cache is cache == {} and model.mean is mean and not mean.any()
    with torch.no_grad():
        model.bias += 1
        assert torch.allclose(model.eval()(torch.zeros(2, 16)), model.layer.bias + 2)


def test_counting_gives_a_lazy_layer_no_shape():
    model = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ConfigError, match=r"0\.weight has no shape yet: call the model with an input first"):
        tdcompress.count(model, (16,))
    assert isinstance(model[0], nn.LazyLinear)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(16, 16, batch_first=True), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def test_a_layer_with_several_weights_that_stays_is_one_row_and_keeps_its_hooks():
    model, calls = Tagger(), []
    handle = model.rnn.register_forward_hook(lambda *_: calls.append("rnn"))
    tdcompress.compress(model, "tt", 2, (5, 16), keep=["rnn"])
    rows = tdcompress.report(model).counts["layers"]
    assert [(row["name"], row["reason"], row["dense_macs"]) for row in rows] == [
        ("rnn", "kept", 5 * 4 * 16 * 32),
        ("out", None, 5 * 16 * 16),
    ]
    tdcompress.compress(model, "tt", 2, (5, 16), keep=["out"])
    rows = {row["name"]: row for row in tdcompress.report(model).counts["layers"]}
    assert rows["rnn.ih_l0"]["format"] == "tt" == rows["out"]["format"]
    calls.clear()
    model(torch.randn(2, 5, 16))
    handle.remove()
    model(torch.randn(2, 5, 16))
    assert calls == ["rnn"]


@pytest.mark.parametrize("keep_cores", [False, True])
def test_what_is_frozen_is_so_in_plain_modules(keep_cores: bool):
    model = tdcompress.compress(Tagger(), "tt", 2, (5, 16), keep=[])
    model.rnn.ih_l0.requires_grad_(False)
    model.out.bias.requires_grad_(False)
    for plan in ("chain", "dense"):
        with torch.no_grad():
            plain = tdcompress.fold(model, (5, 16), plan=plan, keep_cores=keep_cores)
        frozen = {name for name, value in plain.named_parameters() if not value.requires_grad}
        weights = {name for name in frozen if not name.endswith("bias")}
        assert weights and all("weight_ih_l0" in name for name in weights)
        assert {name for name in frozen if name.endswith("bias")} == {
            name for name, _ in plain.named_parameters() if name.startswith("out") and name.endswith("bias")
        }


def test_hooks_flags_and_frozen_weights_are_kept():
    model, calls = Two(), []
    model.mix.register_forward_hook(lambda layer, args, kwargs, out: calls.append(kwargs), with_kwargs=True)
    model.mix.register_full_backward_hook(lambda layer, grad_in, grad_out: calls.append("gradient"))
    model.mix.weight.requires_grad_(False)
    model.image.eval()
    tdcompress.compress(model, "tt", 3, example_inputs=shown(), keep=["out", "tokens"])
    assert set(factorised(model)) == {"image", "mix"}
    assert not any(core.requires_grad for core in model.mix.tensors()) and model.mix.bias.requires_grad
    assert not model.image.training and model.mix.training
    calls.clear()
    model(*shown(2)).sum().backward()
    assert [type(call) for call in calls] == [dict, dict, str, str]


def test_a_weight_that_is_cores_is_read_and_not_written():
    model = tdcompress.compress(Two(), "tt", 3, example_inputs=shown(), keep=["out", "tokens"])
    torch.testing.assert_close(model.mix.weight, model.mix.to_dense())
    for value in (nn.Parameter(torch.zeros(16, 16)), torch.zeros(16, 16)):
        with pytest.raises(AttributeError, match="a weight held as cores cannot be set: write to the cores"):
            model.mix.weight = value


def test_the_report_says_what_became_of_each_layer():
    model = Two()
    model.image = nn.utils.parametrizations.weight_norm(model.image)
    tdcompress.compress(model, "tt", 3, example_inputs=shown(), keep=["out", "tokens"])
    found = tdcompress.report(model)
    rows = {layer["name"]: layer for layer in found.counts["layers"]}
    assert rows["mix"]["format"] == "tt" and rows["mix"]["parameters"] < rows["mix"]["dense_parameters"] == 256
    assert rows["out"]["reason"] == "kept"
    assert rows["image"]["reason"].endswith("remove_parametrizations(layer, 'weight')")
    assert rows["unused"]["reason"] == "the inputs do not reach it" and rows["unused"]["macs"] == 0
    assert found.counts == tdcompress.count(model, example_inputs=shown())
    table = {line.split()[0]: line for line in str(found).splitlines() if line}
    assert set(rows) < set(table) and " 256 => " in table["mix"] and table["out"].endswith(" kept")
    assert str(found).endswith("for example_inputs (int64 (1, 5), float32 (1, 8, 6, 6))")
    first, _, last = rows["mix"]["cores"].values(), None, rows["mix"]["ranks"].values()
    assert " ".join("x".join(map(str, shape)) for shape in first) in table["mix"]
    assert " ".join(map(str, last)) in table["mix"]
    with pytest.raises(ConfigError, match=r"this Two was not compressed; tdcompress\.count says what it holds"):
        tdcompress.report(Two())
