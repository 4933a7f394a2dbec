"""Ranks by budget: what is asked for is reached, by ranks that a layer can use, or the bounds are told."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from cases import FACTORISED, having
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tdcompress.cli.shared.tables import print_report
from tdcompress.compression.ranks.budget import Unreachable, fit
from tdcompress.compression.survey.counts import count
from tdcompress.compression.survey.report import report as reported
from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.layers.base import Factorised
from tdcompress.models import build as archs
from tdcompress.tensor.caps import caps
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.graph import Core, Graph
from tdcompress.tensor.rank import parse

pytestmark = pytest.mark.usefixtures("one_thread")

LENET = 320 + 18_496 + 1_179_776 + 1_290  # parameters of the dense network, counted in test_report


def lenet() -> nn.Module:
    return archs.build(ArchConfig(name="lenet"), 1, 10, 28)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def ranks(model: nn.Module) -> dict[str, dict[str, int]]:
    return {name: layer.graph.ranks for name, layer in model.named_modules() if isinstance(layer, Factorised)}


def of_lenet(format: str, rank: str, **settings: object) -> nn.Module:
    """With initial values that take no time."""
    return compress(lenet(), format, rank, (1, 28, 28), init="variance", **settings)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(100, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 10))


# As matrices the layers hold 160 R and 100 S entries, of 77.46 q and 48.99 q: the roots of 6000 and 2400 entries dense.
# R reaches 10 at q = 20.66, 11 at 22.72, 12 at 24.79; S 10 at 20.41, 11 at 22.45, 12 at 24.49.
# Kept: 40*10 and the biases 60 + 40 + 10. Dense: 8910.
TWO_LAYERS = [
    ("params:3330", 10, 12),  # 10 and 11 make 3210, and there is room for another 100
    (f"{8910 / 3330!r}x", 10, 12),
    ("params:3230", 10, 11),
    ("params:3440", 11, 12),  # 11 and 11 make 3370, 2.03 % short, so one bond goes beyond: 3470
    ("params:3515", 11, 12),
    # MACs are entries: 160 R + 100 S + 400 of 6000 + 2400 + 400
    (f"macs:{3220 / 8800!r}", 10, 12),
]


@pytest.mark.parametrize(("rank", "first", "second"), TWO_LAYERS)
def test_a_network_counted_by_hand(rank: str, first: int, second: int):
    model = compress(two_layers(), "tt", rank, (100,), layout="matrix", plan="chain")
    assert ranks(model) == {"0": {"r1": first}, "2": {"r1": second}}


@pytest.mark.parametrize("target", [2, 4, 10, 20, 50])
@pytest.mark.parametrize("format", FACTORISED)
def test_compression_ratios_of_a_whole_network(format: str, target: int):
    assert LENET / parameters(of_lenet(format, f"{target}x")) == pytest.approx(target, rel=0.0205)


@pytest.mark.parametrize("target", [60_000, 120_000, 300_000])
@pytest.mark.parametrize("format", FACTORISED)
def test_parameter_counts_of_a_whole_network(format: str, target: int):
    assert parameters(of_lenet(format, f"params:{target}")) == pytest.approx(target, rel=0.02)


@pytest.mark.parametrize("target", [0.06, 0.1, 0.2])
@pytest.mark.parametrize("format", FACTORISED)
def test_macs_of_a_whole_network(format: str, target: float):
    # One core at a time: MACs then grow with the ranks in small steps, whatever the plan would be.
    report = count(of_lenet(format, f"macs:{target}", plan="chain"), (1, 28, 28))
    assert report["macs"] / report["dense_macs"] == pytest.approx(target, rel=0.02)


@pytest.mark.parametrize("layout", ["channels", "matrix", "split", "paired"])
def test_no_bond_is_larger_than_its_layer_can_use(layout: str):
    for format, _ in having(layout):
        for rank in ("30x", "macs:0.1"):
            try:
                model = of_lenet(format, rank, layout=layout)
            except ConfigError as error:
                assert "cannot be met" in str(error)  # noqa: PT017
                continue
            for layer in model.modules():
                if isinstance(layer, Factorised):
                    limits = caps(layer.graph)
                    assert all(1 <= rank <= limits[bond] for bond, rank in layer.graph.ranks.items())


@pytest.mark.parametrize("format", FACTORISED)
def test_a_larger_budget_never_buys_less(format: str):
    sizes = []
    for size in range(60_000, 400_000, 48_000):
        # A ring over two modes has gaps: 36 and 40 are products of two bonds up to 12, 37 to 39 are not.
        with contextlib.suppress(ConfigError):
            sizes.append(parameters(of_lenet(format, f"params:{size}")))
    assert len(sizes) >= 7
    assert sizes == sorted(sizes)


def test_layers_with_their_own_rank_keep_it_and_the_others_absorb():
    model = compress(lenet(), "tt", "20x", (1, 28, 28), layout="matrix", layers={"fc1": {"rank": 5}})
    # conv1 320, fc1 5 * (9216 + 128) + 128, fc2 1290: 48,458 of 59,994 are spent; conv2 takes 352 R + 64
    assert ranks(model) == {"conv2": {"r1": 32}, "fc1": {"r1": 5}}


def test_a_second_call_reckons_with_the_same_dense_network():
    model = compress(lenet(), "tt", 2, (1, 28, 28), keep=["conv*", "fc2"], layout="matrix")
    assert parameters(model) == LENET - 9216 * 128 + 2 * (9216 + 128)
    compress(model, "tt", "40x", (1, 28, 28))  # LeNet's 30,000: conv1, of 320, takes less than a tenth
    assert set(ranks(model)) == {"conv2", "fc1"}
    assert parameters(model) == pytest.approx(LENET / 40, rel=0.02)


def _paired(layer: nn.Module) -> bool:
    """Whether some core carries an input and an output mode, so that no bond parts all inputs from all outputs."""
    return any({"i1", "o1"} <= set(core.indices) for core in layer.graph.cores)


@pytest.mark.parametrize("format", [format for format, _ in having("paired")])
def test_a_budget_of_parameters_pairs_modes(format: str):
    def compressed(rank: int | str, width: int = 64, **settings: object) -> nn.Sequential:
        net = nn.Sequential(nn.Conv2d(width, width, 3), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4 * width, 125))
        return compress(net, format, rank, (width, 8, 8), keep=[], allow_larger=True, **settings)

    def paired(rank: int | str, **settings: object) -> set[bool]:
        model = compressed(rank, **settings)
        return {_paired(model[0]), _paired(model[3])}

    for rank in ("2x", "params:30000", "adaptive:2x"):
        assert paired(rank) == {True}
    for rank in (4, "reference", "macs:0.5"):
        assert paired(rank) == {False}
    assert paired("8x", width=16, layout="channels") == paired("8x", width=16, init="fit") == {False}

    for init in (None, "fit"):
        saved = compressed("8x", 16, init=init)
        cores = {name: dict(saved.get_submodule(name).cores) for name in ("0", "3")}
        again = compressed("8x", 16, cores=cores)
        for name in cores:
            torch.testing.assert_close(again.get_submodule(name).to_dense(), saved.get_submodule(name).to_dense())


def test_each_bond_has_its_own_rank():
    own = {"rank": [4, 50], "layout": "split", "in_modes": [10, 10], "out_modes": [60]}
    model = compress(two_layers(), "tt", 3, (100,), layout="matrix", layers={"0": own})
    # Modes 10 10 60: at most 10 * r1 of the second
    assert ranks(model) == {"0": {"r1": 4, "r2": 40}, "2": {"r1": 3}}
    with pytest.raises(ConfigError, match=r"layer 0: rank=\[4, 8, 2\] has 3 sizes, but there are 1 bonds"):
        compress(two_layers(), "tt", [4, 8, 2], (100,), layout="matrix")


BOUNDS = [
    # R = 1: 160 + 100 + 510; at most the dense network, because no layer is swapped for a larger one
    ("params:700", "770 parameters, the largest 8,910 parameters, the nearest found 770"),
    ("params:20000", "770 parameters, the largest 8,910 parameters, the nearest found 8,910"),
    ("20x", r"11\.57x, the largest 1x, the nearest found 11\.57x"),  # 8910 / 770
    ("macs:0.01", r"0\.075 of the dense MACs, the largest 1 of the dense MACs"),  # 660 / 8800
]


@pytest.mark.parametrize(("rank", "said"), BOUNDS)
def test_what_cannot_be_reached_is_told_with_both_ends(rank: str, said: str):
    model = two_layers()
    with pytest.raises(
        ConfigError, match=f"rank={rank} cannot be met within 2 %: the smallest ranks give {said}"
    ) as error:
        compress(model, "tt", rank, (100,), layout="matrix", plan="chain", keep=["4"])
    assert "\n" not in str(error.value)
    assert ranks(model) == {}


def test_larger_than_dense_where_it_is_allowed():
    # R = 60 and S = 40: 9600 + 4000 + 510
    model = compress(two_layers(), "tt", "params:14110", (100,), layout="matrix", allow_larger=True)
    assert ranks(model) == {"0": {"r1": 60}, "2": {"r1": 40}}
    assert parameters(model) == 14_110


def test_a_budget_of_macs_needs_plans_that_no_measurement_changes():
    with pytest.raises(ConfigError, match=r"macs:0\.2 .*plan=model"):
        compress(two_layers(), "tt", "macs:0.2", (100,), plan="measure")


@pytest.mark.parametrize("target", [0.1, 0.5])
@pytest.mark.parametrize("format", FACTORISED)
def test_a_budget_of_macs_is_met_where_reconstructing_would_be_faster(format: str, target: float):
    model = compress(lenet(), format, f"macs:{target}", (1, 28, 28), init="orthogonal")
    report = count(model, (1, 28, 28))
    assert report["macs"] / report["dense_macs"] == pytest.approx(target, rel=0.02)
    assert all(len(m.plan.steps) > 1 for m in model.modules() if isinstance(m, Factorised))


def test_steps_too_coarse_for_the_target():
    # 200 R + 100, and 1010 of the last
    model = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 10))
    with pytest.raises(ConfigError, match=r"params:1400 cannot.*smallest ranks give 1,310 .*nearest found 1,310"):
        compress(model, "tt", "params:1400", (100,), layout="matrix", keep=["1"])
    assert ranks(compress(model, "tt", "params:1500", (100,), layout="matrix", keep=["1"])) == {"0": {"r1": 2}}


def test_a_layer_of_its_own_has_no_budget():
    with pytest.raises(ConfigError, match=r"method.layers.0: rank=10x is a budget of the whole network"):
        compress(two_layers(), "tt", 4, (100,), layers={"0": {"rank": "10x"}})


def test_layers_that_stay_dense_have_no_budget_to_meet():
    assert ranks(compress(two_layers(), "dense", "10x", (100,))) == {}
    with pytest.raises(ConfigError, match=r"smallest ranks give 1x, the largest 1x"):
        compress(two_layers(), "tt", "10x", (100,), keep=["*"])


def chain(*sizes: int) -> Graph:
    """A train over modes of these sizes, every bond at size one."""
    count = len(sizes)
    cores = [
        Core(f"c{k}", (*((f"r{k}",) if k else ()), f"m{k}", *((f"r{k + 1}",) if k < count - 1 else ())))
        for k in range(count)
    ]
    modes = {f"m{k}": size for k, size in enumerate(sizes)}
    return Graph(tuple(cores), tuple(modes), modes | {f"r{k}": 1 for k in range(1, count)})


def test_bonds_of_a_layer_are_alike_up_to_their_caps():
    # Modes 4 10 10 4, caps 4 40 4: 4a + 10ab + 10bc + 4c entries
    (found,) = fit([[chain(4, 10, 10, 4)]], lambda _: lambda _, graph: graph.parameters, [1600], 0, 832)
    assert found.ranks == {"r1": 4, "r2": 10, "r3": 4}  # 16 + 400 + 400 + 16
    (found,) = fit([[chain(4, 10, 10, 4)]], lambda _: lambda _, graph: graph.parameters, [1600], 0, 204)
    assert found.ranks == {"r1": 3, "r2": 3, "r3": 3}  # 12 + 90 + 90 + 12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(2, 9), min_size=2, max_size=5), min_size=1, max_size=4), st.integers(2, 4000))
def test_what_is_found_is_near_and_within_the_caps(sizes: list[list[int]], target: int):
    graphs = [[chain(*modes)] for modes in sizes]
    try:
        found = fit(graphs, lambda _: lambda _, graph: graph.parameters, list(map(math.prod, sizes)), 7, target)
    except Unreachable as error:
        ends = (error.smallest, error.nearest, error.largest)
        assert ends == tuple(sorted(ends))
        assert error.smallest == 7 + sum(map(sum, sizes))  # noqa: PT017
        assert abs(error.nearest - target) > 0.02 * target  # noqa: PT017
        return
    assert 7 + sum(graph.parameters for graph in found) == pytest.approx(target, rel=0.02)
    for graph in found:
        assert all(1 <= size <= caps(graph)[bond] for bond, size in graph.ranks.items())


def test_the_report_tells_what_was_asked_for_and_reached(capsys: pytest.CaptureFixture[str]):
    for rank, reached in (("params:3330", "3,310 parameters"), (f"{8910 / 3330!r}x", "2.692x")):
        print_report(reported(compress(two_layers(), "tt", rank, (100,), layout="matrix")), parse(rank))
        assert f"rank={rank}: reached {reached}" in capsys.readouterr().out


def test_one_layer_of_blocks_meets_what_any_of_its_graphs_meets():
    for layer, rank in ((nn.Linear(512, 512), "10x"), (nn.Linear(128, 128), "5x"), (nn.Conv2d(64, 128, 3), "15x")):
        shape = (layer.weight.shape[1], *(9,) * (layer.weight.dim() - 2))
        whole = parameters(layer)
        held = compress(nn.Sequential(layer), "btt", rank, shape, keep=[])
        assert abs(whole / parameters(held) / float(rank[:-1]) - 1) <= 0.02
