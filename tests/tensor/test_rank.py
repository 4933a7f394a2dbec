"""Rank expressions: every spelling of one meaning is one rank, and what means nothing is refused in one line."""

from __future__ import annotations

import copy
import pickle
import re

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.tensor.build import build, with_rank
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS
from tdcompress.tensor.rank import Budget, Energy, Rank, Reference, Size, Sizes, Vbmf, parse

SPELLINGS = [
    (8, Size(8), "8"),
    (" 8 ", Size(8), "8"),
    ("+8", Size(8), "8"),
    ("008", Size(8), "8"),
    (numpy.int64(8), Size(8), "8"),
    (numpy.uint8(8), Size(8), "8"),
    ([8], Size(8), "8"),
    ((8,), Size(8), "8"),
    ("[8]", Size(8), "8"),
    ([4, 8], Sizes((4, 8)), "4-8"),
    ((4, 8, 2), Sizes((4, 8, 2)), "4-8-2"),
    ([numpy.int32(4), 8], Sizes((4, 8)), "4-8"),
    (torch.Size([4, 8]), Sizes((4, 8)), "4-8"),
    (torch.zeros(4, 8).shape, Sizes((4, 8)), "4-8"),
    ("[4, 8]", Sizes((4, 8)), "4-8"),
    ("[4,8]", Sizes((4, 8)), "4-8"),
    ("(4, 8, 2)", Sizes((4, 8, 2)), "4-8-2"),
    ("4-8", Sizes((4, 8)), "4-8"),
    ("reference", Reference(), "reference"),
    ("Reference", Reference(), "reference"),
    ("vbmf", Vbmf(), "vbmf"),
    ("VBMF", Vbmf(), "vbmf"),
    ("energy:0.9", Energy(0.9), "energy:0.9"),
    ("energy:0.90", Energy(0.9), "energy:0.9"),
    ("energy:9e-1", Energy(0.9), "energy:0.9"),
    ("energy:.9", Energy(0.9), "energy:0.9"),
    ("energy:1.0", Energy(1.0), "energy:1"),
    ("10x", Budget("ratio", 10), "10x"),
    ("10X", Budget("ratio", 10), "10x"),
    (" 10x ", Budget("ratio", 10), "10x"),
    ("10.0x", Budget("ratio", 10), "10x"),
    ("1E1X", Budget("ratio", 10), "10x"),
    ("1e1x", Budget("ratio", 10), "10x"),
    ("2.50x", Budget("ratio", 2.5), "2.5x"),
    ("1x", Budget("ratio", 1), "1x"),
    (".5x", Budget("ratio", 0.5), "0.5x"),
    ("0.5x", Budget("ratio", 0.5), "0.5x"),
    ("params:120000", Budget("params", 120000), "params:120000"),
    ("params:1.2e5", Budget("params", 120000), "params:120000"),
    ("macs:0.20", Budget("macs", 0.2), "macs:0.2"),
    ("macs:1", Budget("macs", 1), "macs:1"),
    ("adaptive:10x", Budget("ratio", 10, adaptive=True), "adaptive:10x"),
    ("Adaptive:10.0X", Budget("ratio", 10, adaptive=True), "adaptive:10x"),
    ("adaptive:params:1.2e5", Budget("params", 120000, adaptive=True), "adaptive:params:120000"),
]


@pytest.mark.parametrize(("asked", "rank", "text"), SPELLINGS, ids=lambda value: repr(value)[:24])
def test_expressions_of_one_meaning_are_one(asked: object, rank: Rank, text: str):
    found = parse(asked)
    assert found == rank and hash(found) == hash(rank) and type(found) is type(rank)
    assert str(found) == f"{found}" == text
    assert parse(found) is found and parse(text) == found
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found
    assert found.plain == (8 if text == "8" else text) and type(found.plain) in (int, str)


def test_other_meanings_are_others():
    ranks = {rank for _, rank, _ in SPELLINGS}
    assert len(ranks) == len({text for _, _, text in SPELLINGS})
    assert {rank for rank in ranks if rank.needs_weights} == {Vbmf(), Energy(0.9), Energy(1)}


WHOLE = "is not a whole number; use for example rank=8, .*10x.*params:120000.*macs:0.2.*adaptive:10x.*vbmf"
UNKNOWN = [
    *(True, False, None, 8.0, numpy.bool_(True), {4, 8}, b"48", [], [4, 8.0], [True, 4], ["4", "8"]),
    *(
        "",
        "x",
        "nanx",
        "infx",
        "10y",
        "1_0x",
        "10 x",
        "4-",
        "0-4",
        "Much",
        "\u0663",
        "params:",
        "params:-3",
        "params:x",
    ),
    *("vbmf:1", "energy:", "energy:x", "energy:nan", "adaptive", "adaptive:", "adaptive:8", "adaptive:4-8"),
    *("adaptive:reference", "adaptive:vbmf", "adaptive:adaptive:10x"),
]
GARBAGE = [
    *((asked, f"rank={re.escape(str(asked))} {WHOLE}") for asked in UNKNOWN),
    ("+-5", "is not a whole number"),
    ("9" * 5000, "is not a whole number"),
    ("a\nb", "rank=a b is not a whole number"),
    (0, "rank=0 must be at least 1"),
    ("-3", "rank=-3 must be at least 1"),
    (numpy.int64(-3), "rank=-3 must be at least 1"),
    ([4, 0], "rank=0 must be at least 1"),
    ("params:2.5", "rank=params:2.5 must be a whole number of parameters"),
    ("macs:2", "rank=macs:2 must be a share of the dense MACs, at most 1"),
    ("macs:0", "greater than 0"),
    ("0x", "greater than 0"),
    ("1e400x", "finite"),
    ("1e-400x", "greater than 0"),
    ("energy:0", "rank=energy:0 must be a share"),
    ("energy:1.5", "rank=energy:1.5 must be a share"),
    ("adaptive:macs:1", "rank=adaptive:macs:1 leaves nothing to cut.*less than 1"),
    ("adaptive:1x", "rank=adaptive:1x leaves nothing to cut.*more than 1x"),
    ("adaptive:1.0X", "rank=adaptive:1x leaves nothing to cut"),
    ("adaptive:0.5x", "rank=adaptive:0.5x leaves nothing to cut"),
    ("adaptive:0x", "greater than 0"),
]


@pytest.mark.parametrize(("asked", "message"), GARBAGE, ids=lambda value: repr(value)[:12])
def test_garbage_is_refused_in_one_line(asked: object, message: str):
    with pytest.raises(ConfigError, match=message) as error:
        parse(asked)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("exponent", [18, 5000])
def test_a_number_without_end_is_refused(exponent: int):
    for value in (10**exponent, -(10**exponent), [4, 10**exponent]):
        with pytest.raises(ConfigError, match="rank must have at most 18 digits"):
            parse(value)
    assert parse(10**18 - 1) == parse("9" * 18)


EXPRESSIONS = st.from_regex(r"(adaptive:)?(params:|macs:|energy:)?[-+0-9.eE_]{0,9}[xX]?")


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.text(), EXPRESSIONS, st.integers(), st.floats(), st.lists(st.integers(-1, 99), max_size=4)))
def test_a_rank_parses_or_is_refused(rank: object):
    try:
        found = parse(rank)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert parse(str(found)) == parse(found.plain) == found


def test_a_rule_of_the_weight_needs_one():
    graph = build((12, 8), FORMATS["tt"], "matrix")
    for rank in (Vbmf(), Energy(0.9)):
        with pytest.raises(ConfigError, match=f"rank={rank} follows from a weight"):
            with_rank(graph, FORMATS["tt"], rank, (12, 8))
