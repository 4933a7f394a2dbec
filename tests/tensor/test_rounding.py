"""Square cores, which a budget leaves to their neighbours."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FACTORISED, having
from torch import nn

from tdcompress.compression.spec import build_graph
from tdcompress.compression.swap import compress
from tdcompress.config.schema import MethodConfig
from tdcompress.layers.base import Factorised
from tdcompress.layers.conv import FactorisedConv
from tdcompress.tensor.caps import absorbed, capped
from tdcompress.tensor.contraction.plan import merge_all
from tdcompress.tensor.formats import find_format
from tdcompress.tensor.graph import Core, Graph


def _graph(method: str, shape: tuple[int, ...], rank: int, **settings) -> Graph:
    graph = build_graph(shape, find_format(method), MethodConfig(method, **settings))
    return capped(graph, dict.fromkeys(graph.bonds, rank))


def test_ends_of_a_train_and_leaves_of_a_tree_are_absorbed_by_hand_count():
    """Modes 8 8 8 | 8 8 8 at rank 20: the 8 x 8 ends go, the cores beside them have 8 * 8 * 20 entries."""
    train = absorbed(_graph("tt", (512, 512), 20, layout="split"))
    assert [math.prod(train.shape(core)) for core in train.cores] == [8 * 8 * 20, 20 * 8 * 20, 20 * 8 * 20, 20 * 8 * 8]
    tree = absorbed(_graph("ht", (512, 512), 20))
    assert sorted(tree.ranks.values()) == [20, 20, 20, 20]
    # Two nodes of two modes each, above either one a transfer core that holds the third mode, and the root.
    assert tree.parameters == 2 * (64 * 20 + 20 * 8 * 20) + 20 * 20


def test_at_full_leaves_a_hierarchical_tucker_convolution_is_tucker_2():
    tree = absorbed(_graph("ht", (512, 512, 3, 3), 98))
    assert tree.parameters == 2 * 512 * 98 + 9 * 98 * 98
    assert len(tree.cores) == 3


def test_nothing_narrower_than_its_modes_is_absorbed():
    graph = _graph("tt", (512, 512), 7, layout="split")
    assert absorbed(graph) is graph


def test_two_cores_stay():
    graph = _graph("tt", (6, 6), 6, layout="matrix")
    assert absorbed(graph) is graph


@pytest.mark.parametrize(("method", "layout"), having("channels", "split", "paired"))
def test_the_neighbour_takes_over_what_the_square_core_did(method: str, layout: str):
    """Contracting each core that went into its neighbour, by einsum, gives cores of the same weight."""
    graph = _graph(method, (16, 12), 5, layout=layout, factors=2)
    values = {core.name: torch.randn(graph.shape(core), dtype=torch.float64) for core in graph.cores}
    whole = merge_all(graph, list(values.values()))
    small, left = absorbed(graph), graph
    for core in [core for core in graph.cores if core.name not in {kept.name for kept in small.cores}]:
        core = next(other for other in left.cores if other.name == core.name)
        bond = left.leaf_bond(core)
        neighbour = next(other for other in left.cores if bond in other.indices and other is not core)
        values[neighbour.name] = _joined(core, neighbour, bond, values.pop(core.name), values[neighbour.name])
        left = left.merged(core)
    assert left == small
    assert torch.allclose(merge_all(small, [values[core.name] for core in small.cores]), whole)
    assert small.parameters <= graph.parameters


def _joined(core: Core, neighbour: Core, bond: str, value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    letters = {index: chr(97 + k) for k, index in enumerate(dict.fromkeys((*core.indices, *neighbour.indices)))}
    modes = [index for index in core.indices if index != bond]
    result = [new for index in neighbour.indices for new in (modes if index == bond else [index])]
    terms = ("".join(letters[index] for index in indices) for indices in (core.indices, neighbour.indices, result))
    return torch.einsum("{},{}->{}".format(*terms), value, other)


@pytest.mark.parametrize("rank", ["3x", "macs:0.3"])
@pytest.mark.parametrize("method", FACTORISED)
def test_a_budget_leaves_no_square_core_and_its_cores_build_the_network_again(method: str, rank: str):
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        convolutions = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 16, 64), nn.Linear(64, 10))

    model = compress(network(), method, rank, (3, 8, 8))
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Factorised)}
    assert layers
    assert all(absorbed(layer.graph) == layer.graph for layer in layers.values())
    cores = {name: dict(layer.cores) for name, layer in layers.items()}
    again = compress(network(), method, rank, (3, 8, 8), cores=cores)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.allclose(model(images), again(images), atol=1e-5)  # along other paths, perhaps


def test_a_core_of_five_dimensions_lets_the_network_be_channels_last():
    def network(**settings) -> nn.Sequential:
        model = nn.Sequential(nn.Conv2d(32, 64, 3))
        return compress(model, "tt", 40, (32, 6, 6), keep=[], layout="split", kernel="separate", **settings)

    layer = network()[0]
    assert isinstance(layer, FactorisedConv)
    graph = absorbed(layer.graph)
    assert max(len(core.indices) for core in graph.cores) == 5
    model = network(cores={"0": {core.name: torch.randn(graph.shape(core)) for core in graph.cores}})
    weight = model[0].to_dense()
    assert torch.equal(model.to(memory_format=torch.channels_last)[0].to_dense(), weight)
