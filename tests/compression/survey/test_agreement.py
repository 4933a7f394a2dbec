"""Models that would not compute with the cores that their layers are held as, or not what they computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tdcompress
from tdcompress.compression.swap import sketch
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


class Elsewhere(nn.Module):
    """Whose layer is not only called as a submodule; ``way`` gives what is called."""

    def __init__(self, way: Callable[[nn.Linear], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 32)
        self.way = way(self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.way(x)))


class InList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 32)
        self.steps = [self.first, self.last]

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class ByClass(nn.Module):
    """Which treats what is a torch convolution in another way."""

    def __init__(self, many: bool) -> None:
        super().__init__()
        self.many = many
        self.layers = nn.ModuleList([nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, bias=False)])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        seen = []
        for layer in self.layers:
            x = layer(x) * 2 if isinstance(layer, nn.Conv2d) else layer(x)
            if isinstance(layer, nn.Conv2d):
                seen.append(x)
        return seen if self.many else x


class Viewed(nn.Module):
    """Convolutions, and what takes their output as if it were contiguous."""

    def __init__(self, view: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(32, 16, 2, 2), nn.Linear(16 * 8 * 8, 10)
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = self.up(F.max_pool2d(F.relu(self.second(x)), 2))
        return self.last(self.view(x))


@pytest.mark.parametrize(
    "way",
    [lambda layer: lambda x: layer(x), lambda layer: layer.forward],
    ids=["function", "forward"],
)
def test_a_layer_that_is_called_by_another_way_is_named(way):
    torch.manual_seed(0)
    model = Elsewhere(way)
    x = torch.randn(3, 32)
    before = model(x)
    with pytest.raises(ConfigError, match=r"layer first: the model has it elsewhere .*keep='first'"):
        tdcompress.compress(model, "tt", "3x", (32,), keep=[])
    assert not factorised(model) and torch.equal(model(x), before)
    tdcompress.compress(model, "tt", 4, (32,), keep="first")
    assert list(factorised(model)) == ["last"]


def test_layers_in_a_list_are_named_and_as_a_module_list_they_are_swapped():
    with pytest.raises(ConfigError, match=r"layer first: .*nn\.ModuleList"):
        tdcompress.compress(InList(), "cp", 8, (32,), keep=[])
    model = InList()
    model.steps = nn.ModuleList(model.steps)
    tdcompress.compress(model, "cp", 8, (32,), keep=[])
    model(torch.randn(3, 32)).sum().backward()
    assert all(core.grad is not None for core in model.first.cores.values())


@dataclass
class Answer:
    """What a model may give, which torch knows nothing of."""

    value: Tensor


class Answering(ByClass):
    def forward(self, x: Tensor) -> Answer:
        return Answer(super().forward(x))


@pytest.mark.parametrize("make", [tdcompress.compress, sketch])
@pytest.mark.parametrize("model", [ByClass(True), ByClass(False), Answering(False)], ids=["many", "one", "object"])
def test_a_model_that_asks_for_a_class_is_refused(model: nn.Module, make: Callable[..., nn.Module]):
    with pytest.raises(ConfigError, match="computes something else once its layers hold cores"):
        make(model, "tt", 4, (3, 8, 8), keep=[])
    assert not factorised(model)


def test_of_several_heads_each_may_be_viewed():
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Conv2d(3, 16, 3, padding=1)
            self.policy, self.value = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            x = F.relu(self.trunk(x))
            heads = self.policy(x), self.value(x)
            return tuple(head.view(len(head), -1) for head in heads)

    model = tdcompress.compress(Heads(), "tt", 4, (3, 8, 8), keep=[])
    assert [name for name, layer in factorised(model).items() if layer.contiguous] == ["policy", "value"]
    assert [head.shape for head in model(torch.randn(2, 3, 8, 8))] == [(2, 512), (2, 512)]


@pytest.mark.parametrize("batch", [1, 3])
def test_convolutions_are_contiguous_where_a_model_views_them(batch: int, tmp_path: Path):
    torch.manual_seed(0)
    model = tdcompress.compress(Viewed(lambda x: x.view(x.shape[0], -1)), "tt", 6, (3, 16, 16), keep=[])
    twin = Viewed(lambda x: x.reshape(x.shape[0], -1))
    twin.load_state_dict(_dense(model))
    x = torch.randn(batch, 3, 16, 16)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(x), twin(x), rtol=1e-4, atol=1e-5)
    assert [name for name, layer in factorised(model).items() if layer.contiguous] == ["up"]  # the others need not
    tdcompress.save(model, tmp_path / "model.safetensors")
    again = tdcompress.load(tmp_path / "model.safetensors", Viewed(lambda x: x.view(x.shape[0], -1)))
    assert torch.equal(again(x), model(x))
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), model.eval()(x))


def _dense(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model's dense twin."""
    held = factorised(model)
    state = {name: value for name, value in model.state_dict().items() if ".cores." not in name}
    return state | {f"{name}.weight": layer.to_dense() for name, layer in held.items()}


def test_what_a_layer_lacks_is_said_with_its_name():
    class Clamped(nn.Linear):
        def least(self) -> float:
            return -1.0

    class Model(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x).clamp(self[0].least()))

    model = Model(Clamped(32, 64), nn.Linear(64, 32))
    with pytest.raises(ConfigError, match=r"behind 0, cannot take .*no attribute 'least'; say by keep"):
        tdcompress.compress(model, "tt", 4, (32,), keep=[])
    tdcompress.compress(model, "tt", 4, (32,), keep="0")
    assert list(factorised(model)) == ["1"]


def test_a_model_that_is_never_the_same_is_compressed():
    class Noisy(nn.Sequential):
        generator = torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn(x.shape, generator=self.generator))

    assert factorised(tdcompress.compress(Noisy(nn.Linear(32, 64), nn.Linear(64, 32)), "tt", 4, (32,), keep=[]))


def test_a_weight_that_is_read_is_put_together():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.shape = nn.Linear(32, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.shape(self.code(x)), self.code.weight.T) / self.code.weight.norm()

    model = tdcompress.compress(Tied(), "tt", 4, (32,), keep=[])
    assert {"code", "shape"} == factorised(model).keys()


def test_nothing_is_kept_of_the_check():
    model = tdcompress.compress(nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32)), "tt", 4, (32,), keep=[]).eval()
    assert all(layer.keeps and not layer.kept._found for layer in factorised(model).values())


@pytest.mark.parametrize("kept", [lambda weight: [weight], lambda weight: {"it": (weight, 1)}])
def test_a_weight_that_is_kept_elsewhere_is_named(kept):
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32))
    model.penalised = kept(model[1].weight)
    with pytest.raises(ConfigError, match=r"layer 1: its weight is in penalised, too, .* or keep='1' dense"):
        tdcompress.compress(model, "tt", 4, (32,), keep=[])
    assert not factorised(model) and isinstance(model[1].weight, nn.Parameter)
    model.penalised = kept(model[1])
    with pytest.raises(ConfigError, match=r"layer 1: it is in penalised, too, .* or keep='1' dense"):
        tdcompress.compress(model, "tt", 4, (32,), keep=[])
    assert not factorised(model)
    del model.penalised
    model.notes = {"mine": []}
    model.notes["mine"].append(model.notes)  # itself
    tdcompress.compress(model, "tt", 4, (32,), keep=[])


class Box:
    """Somebody's own object, that torch knows nothing of."""

    def __init__(self, layer: nn.Linear) -> None:
        self.table = layer.weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.table)


def closed_over(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = layer.weight
    return lambda x: x @ weight.T


WEIGHTS = {"closure": closed_over, "partial": lambda layer: partial(F.linear, weight=layer.weight), "object": Box}


@pytest.mark.parametrize("way", WEIGHTS.values(), ids=WEIGHTS)
def test_a_weight_that_a_function_or_an_object_computes_with_is_named(way):
    model, x = Elsewhere(way), torch.randn(3, 32)
    before = model(x)
    with pytest.raises(
        ConfigError, match=r"layer first: its weight is kept elsewhere, too, in a function or an object"
    ):
        tdcompress.compress(model, "tt", 4, (32,), keep=[])
    assert not factorised(model) and torch.equal(model(x), before)
    tdcompress.compress(model, "tt", 4, (32,), keep="first")
    assert list(factorised(model)) == ["last"]


def test_weights_that_lie_in_one_memory_are_each_its_own():
    whole = torch.randn(2 * 64 * 64)
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    for layer, part in zip(model, whole.chunk(2), strict=True):
        layer.weight = nn.Parameter(part.view(64, 64))
    tdcompress.compress(model, "tt", 4, (64,), keep="1")
    assert list(factorised(model)) == ["0"]
