"""Ranks that are cut while training: what a cut costs is known before, and the network ends at the size asked for."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from cases import FACTORISED
from torch.utils.flop_counter import FlopCounterMode

from tdcompress.compression.ranks.adaptive import Shrinkage, shrink
from tdcompress.compression.ranks.costs import Costs
from tdcompress.compression.spec import build_graph
from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig, MethodConfig, TrainConfig, validate
from tdcompress.layers.base import Factorised
from tdcompress.models import build as archs
from tdcompress.tensor.caps import capped
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.graph import Graph
from tdcompress.tensor.rounding import energies, truncated

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(20, 12, 3, 3), (12, 18)]


def graph_of(name: str, shape: tuple[int, ...], rank: int) -> Graph:
    graph = build_graph(shape, FORMATS[name], MethodConfig(name))
    return capped(graph, dict.fromkeys(graph.bonds, rank))


def gaussian(graph: Graph) -> list[torch.Tensor]:
    return [torch.randn(graph.shape(core), dtype=torch.double) for core in graph.cores]


def dense(graph: Graph, cores: list[torch.Tensor]) -> torch.Tensor:
    """The weight by one einsum over letters."""
    letters = {index: chr(ord("a") + k) for k, index in enumerate(graph.sizes)}
    terms = ("".join(letters[index] for index in core.indices) for core in graph.cores)
    return torch.einsum(f"{','.join(terms)}->{''.join(letters[mode] for mode in graph.modes)}", *cores)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FACTORISED)
def test_a_cut_loses_what_was_said(name: str, shape: tuple[int, ...]):
    torch.manual_seed(0)
    graph = graph_of(name, shape, 4)
    cores = gaussian(graph)
    weight = dense(graph, cores)
    for bond, size in graph.ranks.items():
        if size == 1:
            continue
        shares = energies(graph, cores, bond)
        assert shares.tolist() == sorted(shares.tolist(), reverse=True)
        smaller, found = truncated(graph, cores, {**graph.ranks, bond: size - 1})
        assert smaller.ranks == {**graph.ranks, bond: size - 1}
        lost = ((dense(smaller, found) - weight).norm() / weight.norm()).item() ** 2
        # On a cycle the components are orthogonal only as long as the bond's other end is held.
        tolerance = 1e-9 if graph.is_tree or len(graph.carriers[bond]) > 2 else 0.6
        assert lost == pytest.approx(shares[-1].item(), rel=tolerance, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in FACTORISED if graph_of(name, SHAPES[0], 4).is_tree])
def test_what_a_bond_of_a_tree_holds_are_the_singular_values_of_its_unfolding(name: str):
    torch.manual_seed(0)
    graph = graph_of(name, SHAPES[0], 4)
    cores = gaussian(graph)
    weight = dense(graph, cores)
    for bond, size in graph.ranks.items():
        inside = graph.branches(bond)[0]
        here = [inside.issuperset(graph.carriers[mode]) for mode in graph.modes]
        there = [inside.isdisjoint(graph.carriers[mode]) for mode in graph.modes]
        rows, columns = ([k for k in range(weight.dim()) if side[k]] for side in (here, there))
        blocks = [k for k in range(weight.dim()) if k not in (*rows, *columns)]  # whose modes lie on both sides
        batch, height = (math.prod(weight.shape[k] for k in some) for some in (blocks, rows))
        unfolded = weight.permute(*blocks, *rows, *columns).reshape(batch, height, -1)
        values = torch.linalg.svdvals(unfolded)[:, :size]
        torch.testing.assert_close(energies(graph, cores, bond), (values**2).sum(0) / weight.norm() ** 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FACTORISED)
def test_components_that_hold_nothing_go_without_loss(name: str, shape: tuple[int, ...]):
    torch.manual_seed(0)
    small = graph_of(name, shape, 3)
    cores = gaussian(small)
    weight = dense(small, cores)
    large = graph_of(name, shape, 5)
    padded = []
    for core, value in zip(small.cores, cores, strict=True):
        whole = torch.zeros(large.shape(core), dtype=torch.double)
        whole[tuple(slice(size) for size in value.shape)] = value
        padded.append(whole)
    for bond, carriers in large.carriers.items():
        if bond in large.bonds and len(carriers) == 2:  # any other basis of the bond gives the same weight
            change = torch.randn(large.sizes[bond], large.sizes[bond], dtype=torch.double)
            for position, matrix in zip(carriers, (change, torch.linalg.inv(change).T), strict=True):
                axis = large.cores[position].indices.index(bond)
                padded[position] = torch.tensordot(padded[position], matrix, ([axis], [0])).movedim(-1, axis)
    torch.testing.assert_close(dense(large, padded), weight)
    found, back = truncated(large, padded, small.ranks)
    assert found.ranks == small.ranks
    torch.testing.assert_close(dense(found, back), weight)


@pytest.mark.parametrize("name", [name for name in FACTORISED if graph_of(name, SHAPES[0], 4).is_tree])
def test_a_cut_is_the_same_however_components_are_shared_between_the_ends_of_a_bond(name: str):
    torch.manual_seed(0)
    graph = graph_of(name, SHAPES[0], 4)
    cores = gaussian(graph)
    for bond in [bond for bond, ends in graph.carriers.items() if bond in graph.bonds and len(ends) == 2]:
        ranks = {**graph.ranks, bond: graph.sizes[bond] - 1}
        cut = dense(*truncated(graph, cores, ranks))
        uneven, scale = list(cores), 10.0 ** torch.linspace(-9, 9, graph.sizes[bond], dtype=torch.double)
        for position, factors in zip(graph.carriers[bond], (scale, 1 / scale), strict=True):
            axis = graph.cores[position].indices.index(bond)
            uneven[position] = (cores[position].movedim(axis, -1) * factors).movedim(-1, axis)
        torch.testing.assert_close(energies(graph, uneven, bond), energies(graph, cores, bond))
        torch.testing.assert_close(dense(*truncated(graph, uneven, ranks)), cut)


def test_nothing_has_no_energy():
    graph = graph_of("tt", SHAPES[0], 4)
    cores = [torch.zeros_like(core) for core in gaussian(graph)]
    assert not any(energies(graph, cores, bond).any() for bond in graph.bonds)


def dearest_component(layer: Factorised) -> int:
    """Entries that go with one component of a bond, the most that there are."""
    sizes = layer.graph.sizes
    return max(
        sum(math.prod(sizes[index] for index in core.indices if index != bond) for core in holders)
        for bond in layer.graph.bonds
        for holders in [[core for core in layer.graph.cores if bond in core.indices]]
    )


@pytest.mark.parametrize("name", FACTORISED)
def test_a_network_is_cut_to_the_size_asked_for(name: str):
    torch.manual_seed(0)
    model = archs.build(ArchConfig("lenet"), 1, 10, 28)
    compress(model, name, "adaptive:20x", (1, 28, 28), init="orthogonal")  # a fit of such ranks takes a minute
    whole, target = 1_199_882, 59_994  # parameters of the dense network, and a twentieth
    assert all(isinstance(layer, Factorised) for layer in (model.conv2, model.fc1))
    shrinkage = Shrinkage(target, 6)
    begun = parameters(model)
    assert begun == pytest.approx(math.sqrt(whole * target), rel=0.02)
    images = torch.randn(2, 1, 28, 28)
    before = begun
    for epoch in range(1, 7):
        wanted = shrinkage.wanted(model, epoch)
        if wanted is not None:
            assert wanted == round(before * (target / before) ** (1 / (4 - epoch)))
            dearest = max(map(dearest_component, (model.conv2, model.fc1)))
            cores = list(map(id, model.parameters()))
            assert {id(core) for core in shrink(model, wanted)} <= set(cores)
            assert cores == list(map(id, model.parameters()))  # an optimizer knows them still
        assert model(images).shape == (2, 10)
        before = parameters(model)
        if wanted is not None:
            assert wanted - dearest < before <= 1.021 * wanted
    assert target - dearest < parameters(model) <= 1.021 * target


@pytest.mark.parametrize("name", FACTORISED)
def test_a_network_is_cut_to_the_macs_asked_for(name: str):
    torch.manual_seed(0)
    model = archs.build(ArchConfig("vgg11", width=0.25), 3, 10, 32)
    dense, target = macs(model), int(0.2 * macs(model))
    compress(model, name, "adaptive:macs:0.2", (3, 32, 32), init="variance", factors=2)
    assert macs(model) == pytest.approx(math.sqrt(0.2) * dense, rel=0.05)
    shrinkage, before = Shrinkage(target, 6, multiple=8, costs=Costs((3, 32, 32))), macs(model)
    for epoch in (1, 2, 3):
        wanted = shrinkage.wanted(model, epoch)
        assert wanted == round(before * (target / before) ** (1 / (4 - epoch)))
        assert shrink(model, wanted, multiple=8, last=epoch == 3, costs=shrinkage.costs)
        before = macs(model)
        assert 0.9 * wanted < before <= 1.02 * wanted
    assert before == pytest.approx(target, rel=0.02) and shrinkage.wanted(model, 4) is None


def macs(model: torch.nn.Module) -> int:
    """Of one image while training, without products of cores, by torch's own counter."""
    found = []
    for count in (2, 3):
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(count, 3, 32, 32))
        found.append(counter.get_total_flops() // 2)
    return found[1] - found[0]


def test_what_costs_the_most_is_cut_first():
    torch.manual_seed(0)
    wide, deep = torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.Conv2d(16, 16, 3, padding=1)
    deep.load_state_dict(wide.state_dict())
    first, last = torch.nn.Conv2d(3, 16, 1), torch.nn.Conv2d(16, 10, 1)
    model = torch.nn.Sequential(first, wide, torch.nn.MaxPool2d(4), deep, last)  # of 16 by 16 positions, then 4 by 4
    compress(model, "tt", 12, (3, 16, 16), layout="channels", init="fit", plan="contract")
    costs = Costs((3, 16, 16))
    shrink(model, int(0.9 * costs.total(model)), costs=costs)
    assert model[1].graph.parameters < model[3].graph.parameters == 16 * 12 + 12 * 9 * 12 + 12 * 16


@pytest.mark.parametrize("name", ["tt", "tucker", "ht", "cp"])
def test_the_last_cut_meets_a_budget_that_no_single_component_does(name: str):
    torch.manual_seed(0)
    model = archs.build(ArchConfig("lenet"), 1, 10, 28)
    compress(model, name, "adaptive:10x", (1, 28, 28), layout="channels", init="variance")
    coarse, target = copy.deepcopy(model), 119_988  # of fc1 a component is 9,344
    shrink(coarse, target)
    assert parameters(coarse) < 0.98 * target
    shrink(model, target, last=True)
    assert parameters(model) == pytest.approx(target, rel=0.02)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_the_layer_whose_weight_needs_less_is_cut():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 40), torch.nn.Linear(40, 10))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(40, 2) @ torch.randn(2, 40))  # of rank two
    compress(model, "tt", 10, (40,), layout="matrix", init="spectral")
    before = parameters(model)
    shrink(model, before - 8 * 80)  # eight components of 80 entries
    assert [layer.graph.ranks for layer in (model[0], model[1])] == [{"r1": 2}, {"r1": 10}]


def test_no_layer_loses_nearly_all_at_once():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 40), torch.nn.Linear(40, 10))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(40, 1) @ torch.randn(1, 40))  # of rank one
    compress(model, "tt", 18, (40,), layout="matrix", init="spectral")
    shrink(model, parameters(model) - 18 * 80)  # a half of the two
    assert [layer.graph.ranks for layer in (model[0], model[1])] == [{"r1": 2}, {"r1": 16}]  # 2 >= 18 / 2 / 6


def test_of_two_layers_alike_that_is_cut_which_the_loss_feels_less():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 40), torch.nn.Linear(40, 10))
    model[1].load_state_dict(model[0].state_dict())
    compress(model, "tt", 10, (40,), layout="matrix", init="spectral")
    shrink(model, parameters(model) - 5 * 80, sensitivity={"0": 1e9, "1": 1e-3})
    assert [layer.graph.ranks for layer in (model[0], model[1])] == [{"r1": 10}, {"r1": 5}]


def test_a_layer_with_a_rank_of_its_own_keeps_it():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 40), torch.nn.Linear(40, 10))
    compress(model, "tt", "adaptive:2x", (40,), layout="matrix", layers={"0": {"rank": 8}})
    begun = parameters(model)
    shrink(model, begun - 400, ["0"])
    assert model[0].graph.ranks == {"r1": 8} and parameters(model) < begun - 300


def test_a_compiled_network_goes_on_after_a_cut():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.ReLU(), torch.nn.Linear(40, 10))
    compress(model, "tt", 10, (40,), layout="matrix")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    rows = torch.randn(3, 40)
    for _ in range(2):
        compiled(rows).sum().backward()
        changed = shrink(model, parameters(model) - 160)
        assert changed and all(core.grad is None for core in changed)
    first = dense(model[0].graph, [core.detach().double() for core in model[0].tensors()]).reshape(40, 40)
    hidden = (rows.double() @ first.T + model[0].bias).relu()
    torch.testing.assert_close(compiled(rows).double(), hidden @ model[2].weight.double().T + model[2].bias)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_what_cannot_be_reached_by_cuts():
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 10))  # 2050 parameters
    with pytest.raises(ConfigError, match=r"rank=adaptive:params:2050 leaves nothing to cut.*2,050"):
        compress(model, "tt", "adaptive:params:2050", (40,))
    with pytest.raises(ConfigError, match="epochs must be at least 2"):
        validate(TrainConfig(rank="adaptive:10x", epochs=1))
    with pytest.raises(ConfigError, match="scaled"):
        validate(TrainConfig(rank="adaptive:10x", method=MethodConfig(decay="scaled")))
