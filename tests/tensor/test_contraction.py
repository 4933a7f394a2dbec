"""What holds for every graph: layouts, ranks, paths, plans, norms and the variance law."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from cases import ALL, CASES, Case, Largest, assert_close, einsum_dense, random_cores
from exhaustive import Symmetric, cheapest

from tdcompress.tensor import norm
from tdcompress.tensor.caps import capped, caps
from tdcompress.tensor.contraction.calls import Conv, Linear
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.contraction.path import Geometry, Path
from tdcompress.tensor.contraction.search import paths
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.layout import SPLIT, arrange, balanced_factors

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("number", "count", "factors"),
    [
        (512, 3, (8, 8, 8)),
        (64, 2, (8, 8)),
        (1024, 4, (4, 4, 8, 8)),
        (12, 3, (2, 2, 3)),
        (7, 2, (1, 7)),
        (9216, 1, (9216,)),
    ],
)
def test_balanced_factors(number: int, count: int, factors: tuple[int, ...]):
    assert balanced_factors(number, count) == factors


def test_layouts_written_out():
    shape = (12, 8, 3, 3)
    assert arrange(shape, "channels").sites == (("i",), ("kh", "kw"), ("o",))
    assert arrange(shape, "channels", "separate").sites == (("i",), ("kh",), ("kw",), ("o",))
    assert arrange(shape, "channels", "open").sites == (("i",), ("o",))
    assert arrange(shape, "channels", "open").open == ("kh", "kw")
    assert arrange(shape, "matrix", "open").sites == (("i", "kh", "kw"), ("o",))
    assert arrange(shape, "split", factors=2).sites == (("i1",), ("i2",), ("kh", "kw"), ("o1",), ("o2",))
    assert set(arrange(shape, "paired", factors=2).sites) == {("i1", "o1"), ("i2", "o2"), ("kh", "kw")}
    assert arrange((12, 8), "split", "open", in_modes=[8], out_modes=[2, 6]).sites == (("i1",), ("o1",), ("o2",))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layout": "rows"}, "rows.*channels, matrix, split, paired"),
        ({"layout": "split", "in_modes": [2, 3]}, r"product 6.*8 channels"),
        ({"layout": "split", "out_modes": [-3, -4]}, "out_modes"),
        ({"layout": "paired", "in_modes": [2, 4], "out_modes": [2, 2, 3]}, "2 and 3"),
        ({"layout": "split", "factors": 0}, "factors"),
    ],
)
def test_a_wrong_layout_is_refused(settings: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        arrange((12, 8, 3, 3), **settings)


# Full sizes i=16, kh kw=9, o=32 and, split in two, i=2*8, o=4*8.
CAPS = [
    # TT: min(left product, right product): min(2, 8*9*32), min(16, 9*32), min(16*9, 32), min(16*9*4, 8)
    ("tt", "split", "merged", {"r1": 2, "r2": 16, "r3": 32, "r4": 8}),
    ("tt", "matrix", "merged", {"r1": 32}),  # min(16*9, 32)
    ("tt", "paired", "merged", {"r1": 8, "r2": 9}),  # i1 o1 = 8 | i2 o2 = 64 | 9
    # Tucker: a mode's own size, or what all others can tell apart
    ("tucker", "channels", "merged", {"r_i": 16, "r_kh": 9, "r_o": 32}),
    ("tucker", "channels", "open", {"r_i": 16, "r_o": 32}),
    ("tucker", "matrix", "merged", {"r_i": 32, "r_o": 32}),  # 16*9 = 144 rows, but only 32 columns
    # CP: all modes but the largest bound the rank of any tensor: 16*9*32/32
    ("cp", "channels", "merged", {"r": 144}),
    ("cp", "channels", "separate", {"r": 144}),
    ("cp", "split", "merged", {"r": 16 * 32}),  # all but 9, the largest of 2, 8, 9, 4, 8
    ("cp", "matrix", "merged", {"r": 32}),
    # HT: as TT, along the cuts of its tree ((i1 i2) k) (o1 o2)
    (
        "ht",
        "split",
        "merged",
        {"r_lll": 2, "r_llr": 8, "r_ll": 16, "r_lr": 9, "r_l": 32, "r_rl": 4, "r_rr": 8, "r_r": 32},
    ),
    # TR: a chain's cap, should the other bond of a cut be one: 16 around i, 9 around k, 32 around o. Two bonds between
    # the same two cores share it: sqrt(32) -> 6
    ("tr", "channels", "merged", {"r0": 32, "r1": 16, "r2": 32}),
    ("tr", "matrix", "merged", {"r0": 6, "r1": 6}),
]


@pytest.mark.parametrize(("format", "layout", "kernel", "expected"), CAPS, ids=lambda value: str(value)[:12])
def test_rank_caps_by_hand(format: str, layout: str, kernel: str, expected: dict[str, int]):
    modes = {"in_modes": [2, 8], "out_modes": [4, 8]} if layout in SPLIT else {}
    graph = Case(format, layout, kernel, "conv").graph(10_000, (32, 16, 3, 3), **modes)
    assert caps(graph) == expected
    assert graph.ranks == expected


def test_capping_goes_on_to_the_fixpoint():
    # TT over 8 8 | 8 8: r1 = 1 leaves r2 no more than 1*8, which leaves r3 8*8 and its own cap of 8.
    chain = Case("tt", "split", "merged", "linear").graph(1, (64, 64))
    assert capped(chain, {"r1": 1, "r2": 64, "r3": 64}).ranks == {"r1": 1, "r2": 8, "r3": 8}
    # r3 = 1 now binds r2 to 8 from its right, after r1 bound nothing.
    assert capped(chain, {"r1": 8, "r2": 64, "r3": 1}).ranks == {"r1": 8, "r2": 8, "r3": 1}
    # A Tucker core needs no bond wider than the product of the others: 2*3 for r_i, at a cap of 16.
    core = Case("tucker", "channels", "merged", "conv").graph(1, (32, 16, 3, 3))
    assert capped(core, {"r_i": 16, "r_kh": 2, "r_o": 3}).ranks == {"r_i": 6, "r_kh": 2, "r_o": 3}


@pytest.mark.parametrize("case", [c for c in CASES if c.format in ("tt", "tucker", "ht", "cp")], ids=str)
def test_full_ranks_reach_every_weight(case: Case):
    # The weights near a random one: as many directions as entries, if the caps cut off nothing.
    graph = case.graph(10_000, (4, 4, 2, 1) if case.kind == "conv" else (4, 4))
    cores = random_cores(graph)
    jacobian = torch.autograd.functional.jacobian(lambda *c: einsum_dense(graph, c).flatten(), tuple(cores))
    matrix = torch.cat([block.flatten(1) for block in jacobian], dim=1)
    assert torch.linalg.matrix_rank(matrix) == graph.dense_parameters


def geometry(case: Case, batch: int = 10) -> Geometry:
    """Images of 9x8 that a stride of 2 along x leaves 9x4, or rows."""
    return Geometry(batch, (("y", (9, 9)), ("x", (8, 4))) if case.kind == "conv" else ())


# What a device is short of, with a rank and a batch size.
REGIMES = {
    "arithmetic": (Symmetric(product=1e9, memory=1e12, call=0.0), 6, 100),
    "memory": (Symmetric(product=1e12, memory=1e8, call=1e-8), 2, 10),
    "calls": (Symmetric(product=1e10, memory=1e9, call=1e-5), 4, 1),
}


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("case", [c for c in ALL if len(c.graph().cores) <= 6], ids=str)
def test_the_first_path_is_the_best_of_all_orders(case: Case, regime: str):
    rates, rank, batch = REGIMES[regime]
    graph = case.graph(rank)
    (found,) = paths(graph, geometry(case, batch), rates)
    assert found.seconds == pytest.approx(cheapest(graph, geometry(case, batch), rates), rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_may_be_measured(case: Case):
    graph = case.graph()
    best, chain, dense, few = (
        paths(graph, geometry(case), Rates(), plan) for plan in ("model", "chain", "dense", "measure")
    )
    assert few[0].seconds == best[0].seconds
    assert {chain[0].terms, dense[0].terms} <= {path.terms for path in few}
    assert len({path.terms for path in few}) == len(few) <= 8
    for path in few:
        assert Path.from_plain(json.loads(json.dumps(path.plain()))) == path


@pytest.mark.parametrize("case", ALL, ids=str)
def test_no_named_plan_is_cheaper_than_the_models_choice(case: Case):
    graph = case.graph()
    best = paths(graph, geometry(case), Rates())[0].seconds
    for plan in ("chain", "dense"):
        (path,) = paths(graph, geometry(case), Rates(), plan)
        assert path.seconds >= best
        assert len(path.terms) == (len(graph.cores) if plan == "chain" else 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_contraction_never_merges_all_cores(case: Case):
    graph = case.graph()
    chain, best, found = (paths(graph, geometry(case), Rates(), plan)[0] for plan in ("chain", "model", "contract"))
    assert len(found.terms) > 1 and best.seconds <= found.seconds <= chain.seconds
    assert len(best.terms) == 1 or best == found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_many_inputs_share_costs_each_a_part(case: Case):
    graph, one = case.graph(), geometry(case)
    alone, shared = (paths(graph, replace(one, uses=uses), Rates(), "dense")[0].seconds for uses in (1, 4))
    free = paths(graph, replace(one, uses=math.inf), Rates(), "dense")[0].seconds
    assert shared - free == pytest.approx((alone - free) / 4)


# The chains one writes by hand, at rank 3 from 8 to 12 channels: taps, groups, channels in and out of each convolution.
CHAINS = {
    ("cp", "channels", "merged"): [((1, 1), 1, 8, 3), ((3, 2), 3, 3, 3), ((1, 1), 1, 3, 12)],
    ("cp", "channels", "separate"): [((1, 1), 1, 8, 3), ((3, 1), 3, 3, 3), ((1, 2), 3, 3, 3), ((1, 1), 1, 3, 12)],
    ("tucker", "channels", "open"): [((1, 1), 1, 8, 3), ((3, 2), 1, 3, 3), ((1, 1), 1, 3, 12)],
    ("tt", "matrix", "merged"): [((3, 2), 1, 8, 3), ((1, 1), 1, 3, 12)],
    ("tt", "channels", "merged"): [((1, 1), 1, 8, 3), ((3, 2), 1, 3, 3), ((1, 1), 1, 3, 12)],
}


@pytest.mark.parametrize("names", CHAINS, ids="-".join)
def test_the_chain_is_the_one_written_by_hand(names: tuple[str, str, str]):
    layer = Case(*names, "conv").layer(3)
    plan, cores = layer.plan, layer.tensors()
    assert (plan.merges, plan.order, plan.fuse_bias) == ((), None, True)
    calls = []
    for step in plan.steps:
        assert isinstance(step, Conv)
        assert step.order is None
        out, _, *taps = step.weight(cores).shape
        calls.append((tuple(taps), step.groups, step.channels, out))
    assert calls == CHAINS[names]


def test_the_linear_chain_is_two_products():
    plan = Case("tt", "matrix", "merged", "linear").layer(3).plan
    assert plan.merges == ()
    assert plan.fuse_bias
    assert [(type(s), s.order, s.summed, s.new) for s in plan.steps] == [
        (Linear, None, 8, (3,)),
        (Linear, None, 3, (12,)),
    ]


@pytest.mark.parametrize("most", [norm._MOST, 40])  # entries at once, by which W comes whole, and in many parts
@pytest.mark.parametrize("case", ALL, ids=str)
def test_the_norm_and_its_gradient_are_the_dense_ones(case: Case, most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(norm, "_MOST", most)
    graph = case.graph()
    cores, twins = random_cores(graph), random_cores(graph)
    squared, dense = norm.squared_norm(graph, cores), einsum_dense(graph, twins).square().sum()
    assert_close(squared, dense)
    for found, expected in zip(torch.autograd.grad(squared, cores), torch.autograd.grad(dense, twins), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "conv"], ids=str)
def test_the_norm_of_a_large_kernel_forms_no_dense_weight(case: Case):
    graph = case.graph("reference", (512, 512, 3, 3), factors=3)
    cores = [torch.empty(graph.shape(core), device="meta", requires_grad=True) for core in graph.cores]
    with Largest() as seen:
        norm.squared_norm(graph, cores).backward()
    assert seen.entries < max(graph.dense_parameters, 2 * max(core.numel() for core in cores))


def test_the_norm_of_a_wide_ring_forms_no_large_product():
    graph = Case("tr", "paired", "merged", "linear").graph(104, (4096, 25088))
    cores = [torch.empty(graph.shape(core), device="meta") for core in graph.cores]
    with Largest() as seen:
        norm.squared_norm(graph, cores)
    assert graph.dense_parameters < seen.entries <= 2**28
