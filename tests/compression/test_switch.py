"""From full rank to cores in a training loop of one's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import FACTORISED
from torch import nn
from torch.optim.swa_utils import AveragedModel

import tdcompress
from tdcompress.layers.base import Factorised
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    for _ in range(3):
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("method", FACTORISED)
def test_the_optimizer_has_the_cores_in_place_of_the_weights(method: str, kind: type[torch.optim.Optimizer]):
    model, inputs, labels = network(), torch.randn(20, 48), torch.randint(4, (20,))
    weights = [model[0].weight, model[2].weight]
    others = [p for p in model.parameters() if not any(p is weight for weight in weights)]
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind([{"params": others}, {"params": weights, "lr": 0.003, "weight_decay": 0.1}], lr=0.01, **options)
    steps(model, optimizer, inputs, labels)
    trained = model[2].weight.detach().clone()

    assert tdcompress.switch(model, optimizer, method, "1.6x", (48,), keep=["4"]) is model
    assert isinstance(model[0], Factorised) and isinstance(model[2], Factorised)
    error = float((model[2].to_dense().detach() - trained).norm() / trained.norm())
    assert error < 0.75  # a fit of what was trained; of anything else it would be above 1
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    cores = {id(p) for layer in (model[0], model[2]) for p in layer.tensors()}
    assert {id(p) for p in optimizer.param_groups[1]["params"]} == cores
    assert optimizer.param_groups[1]["lr"] == 0.003 and not any(weight in optimizer.state for weight in weights)
    before = [p.detach().clone() for p in model[2].tensors()]
    first = F.cross_entropy(model(inputs), labels).item()
    assert steps(model, optimizer, inputs, labels) < first
    assert all(not torch.equal(old, new) for old, new in zip(before, model[2].tensors(), strict=True))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_training_goes_on_from_files_after_the_switch(tmp_path, kind: type[torch.optim.Optimizer]):
    def recurrent() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"rnn": nn.LSTM(48, 64, batch_first=True), "head": nn.Linear(64, 4)})

    def logits(model: nn.Module) -> torch.Tensor:
        return model["head"](model["rnn"](inputs[:, None])[0][:, -1])

    options = {"momentum": 0.9, "lr": 0.1} if kind is torch.optim.SGD else {}
    inputs, labels = torch.randn(20, 48), torch.randint(4, (20,))
    for make, forward in ((network, lambda model: model(inputs)), (recurrent, logits)):
        model, other = make(), nn.Parameter(torch.zeros(3))
        optimizer = kind([other, *model.parameters()], **options)

        def step(model: nn.Module, optimizer: torch.optim.Optimizer, forward=forward) -> None:
            F.cross_entropy(forward(model), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        step(model, optimizer)
        passes = {"example_inputs": inputs[:, None]} if make is recurrent else {"input_shape": (48,)}
        held = model["rnn"] if make is recurrent else model
        new = tdcompress.switch(held, optimizer, "tt", 4, keep=["4"][: make is network], **passes)
        if make is recurrent:
            model["rnn"] = new
        step(model, optimizer)
        assert optimizer.param_groups[0]["params"][0] is other
        tdcompress.save(model, tmp_path / "model.safetensors")
        torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
        again = tdcompress.load(tmp_path / "model.safetensors", make())
        resumed = kind([other, *again.parameters()], **options)
        resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
        for one in ((model, optimizer), (again, resumed)):
            step(*one)
        for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_an_optimizer_that_keeps_one_vector_is_refused():
    model = network()
    with pytest.raises(ConfigError, match="LBFGS keeps its parameters in one vector"):
        tdcompress.switch(model, torch.optim.LBFGS(model.parameters()), "tt", "2x", (48,))
    assert isinstance(model[0], nn.Linear)


class Within(torch.optim.SGD):
    """Steps by an optimizer of its own, of other groups or of the same: ZeroRedundancyOptimizer, Lookahead."""

    def __init__(self, model: nn.Module, groups: bool) -> None:
        super().__init__(model.parameters(), lr=0.1)
        self.inner = torch.optim.SGD(model.parameters(), lr=0.1)
        if groups:
            self.inner.param_groups = self.param_groups


def test_an_optimizer_that_steps_by_another_is_refused_unless_they_have_the_same_groups():
    model = network()
    with pytest.raises(ConfigError, match="Within steps by an optimizer within it, which would keep the dense weights"):
        tdcompress.switch(model, Within(model, groups=False), "tt", "1.6x", (48,), keep=["4"])
    assert isinstance(model[2], nn.Linear)
    tdcompress.switch(model, Within(model, groups=True), "tt", "1.6x", (48,), keep=["4"])


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, AveragedModel])
def test_stable_ranks_are_those_of_what_is_wrapped(wrap):
    model = network()
    ranks, wrapped = (tdcompress.StableRanks.of(one, 6) for one in (model, wrap(model)))
    for one in (ranks, wrapped):
        one.measure(model)
        one.measure(wrap(model))
    assert ranks == wrapped and ranks.sums[1] == ranks.sums[2]


def test_an_optimizer_without_a_weight_that_is_trained_is_refused():
    model = network()
    weight = model[2].weight
    others = [parameter for parameter in model.parameters() if parameter is not weight]
    optimizer = torch.optim.SGD(others, lr=0.01)
    with pytest.raises(ConfigError, match="the optimizer has not the weight of 2, whose cores nothing would train"):
        tdcompress.switch(model, optimizer, "tt", "1.6x", (48,), keep=["4"])
    with pytest.raises(ConfigError, match=r"a NoneType is no torch\.optim\.Optimizer"):
        tdcompress.switch(model, None, "tt", "1.6x", (48,))
    assert model[2].weight is weight and [*map(id, optimizer.param_groups[0]["params"])] == [*map(id, others)]
    weight.requires_grad_(False)
    tdcompress.switch(model, optimizer, "tt", "1.6x", (48,), keep=["4"])
    assert isinstance(model[2], Factorised) and not any(core.requires_grad for core in model[2].tensors())


def test_the_rule_goes_by_what_the_weights_do():
    """Stable ranks counted by hand: of diag(2, 1, 1, 1) it is 7 / 4, scaled by 4 / 4 at the start."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
    ranks = tdcompress.StableRanks.of(model, epochs=30, names=["0"])
    with torch.no_grad():
        model[0].weight[0, 0] = 2
    ranks.measure(model)
    assert ranks.sums == pytest.approx([4, 7 / 4])
    assert not ranks.ready
    for _ in range(2):
        ranks.measure(model)
    assert ranks.ready and ranks.latest == 10
    model[0] = tdcompress.linear("tt", 4, 4, rank=1)
    with pytest.raises(ConfigError, match="holds no dense weight"):
        ranks.measure(model)


@pytest.mark.parametrize(
    ("epochs", "before", "ready"), [(30, 96.1, True), (30, 95.9, False), (60, 96.1, True), (60, 95.9, False)]
)
def test_ranks_have_settled_where_they_change_by_less_than_two_per_cent_in_a_thirtieth(epochs, before, ready):
    window = epochs // 15
    assert tdcompress.StableRanks(epochs, {}, [50.0, before, *[99.0] * (window - 1), 100.0]).ready == ready


def test_the_rule_chooses_other_epochs_for_other_data():
    """A target of rank one is learned, and the weights settle, sooner than one in which all directions matter."""
    chosen = []
    for scales in ([1.0, 0, 0, 0, 0, 0, 0, 0], [1, 0.5, 0.35, 0.25, 0.2, 0.15, 0.12, 0.1]):
        torch.manual_seed(0)
        model, inputs = nn.Sequential(nn.Linear(8, 8, bias=False)), torch.randn(64, 8)
        target = inputs @ torch.diag(torch.tensor(scales)) * 4
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        ranks = tdcompress.StableRanks.of(model, epochs=200, names=["0"])
        while not ranks.ready and len(ranks.sums) < 200:
            for _ in range(2):
                optimizer.zero_grad()
                F.mse_loss(model(inputs), target).backward()
                optimizer.step()
            ranks.measure(model)
        chosen.append(len(ranks.sums) - 1)
    assert 3 < min(chosen) < max(chosen) < 199 and max(chosen) > min(chosen) + 3


def test_an_optimizer_with_more_than_a_momentum_begins_anew():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), torch.randn(4, 64)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()
        if not hasattr(model[0], "cores"):
            tdcompress.switch(model, optimizer, "tt", 4, (64,), keep="2")
            before = [core.detach().clone() for core in model[0].tensors()]
    assert all((core != old).any() for core, old in zip(model[0].tensors(), before, strict=True))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_an_optimizer_of_matrices_is_not_given_cores_of_other_axes():
    def built() -> nn.Sequential:
        return nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 64, bias=False))

    model = built()
    optimizer = torch.optim.Muon(model.parameters())
    with pytest.raises(ConfigError, match=r"torch\.optim\.Muon takes matrices only, and 0\.cores\.core1 is none"):
        tdcompress.switch(model, optimizer, "tr", 4, (64,), keep=[])
    assert isinstance(model[0], nn.Linear) and optimizer.param_groups[0]["params"] == [*model.parameters()]
    tdcompress.switch(model, optimizer, "tt", 4, (64,), keep=[], layout="matrix")
    model(torch.randn(2, 64)).sum().backward()
    optimizer.step()
