"""The reader of ``key=value`` words: what each type of field takes, and what is said of words it does not take."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tdcompress.cli.shared.filters import Place, filters, with_filters
from tdcompress.config.words import choice, from_zero, quoted, read, split
from tdcompress.results.rows import COLUMNS
from tdcompress.tensor.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """One field of each type."""

    place: str = "here"
    names: tuple[str, ...] = ("a", "b")
    sizes: tuple[int, ...] = ()
    count: int = 3
    limit: int | None = None
    ratio: float = 1.5
    deep: bool = False
    output: str | None = None
    colour: str = choice("red", ("red", "green"))
    colours: tuple[str, ...] = choice((), {"red": 1, "green": 2})
    share: float | None = from_zero(None)


def test_without_words_the_defaults():
    assert read([], Options) == Options()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("place=there", "there"),
        ("place=a=b", "a=b"),
        ("place=a,b", "a,b"),
        ("place='a,b'", "a,b"),
        ('place="it\'s"', "it's"),
        ("place=it's", "it's"),
        ("place=${x}", "${x}"),
        ("place=null", "null"),
        ("place=12", "12"),
        ("place=[x]", "[x]"),
        ("names=c", ("c",)),
        ("names=c,d", ("c", "d")),
        ("names=c=1,d", ("c=1", "d")),
        ("names='c,d',e", ("c,d", "e")),
        ('names="c,d"', ("c,d",)),
        ("names=it's,that's", ("it's", "that's")),
        ("names=[4,8],10x", ("[4,8]", "10x")),
        ("sizes=1,28", (1, 28)),
        ("count=12", 12),
        ("limit=1", 1),
        ("ratio=2", 2.0),
        ("ratio=1e-3", 0.001),
        ("share=0", 0.0),
        ("share=0.5", 0.5),
        ("deep=true", True),
        ("deep=false", False),
        ("output=x.pt", "x.pt"),
        ("colour=green", "green"),
        ("colours=green,red", ("green", "red")),
    ],
)
def test_each_type_of_field(word, value):
    key = word.split("=")[0]
    found = getattr(read([word], Options), key)
    assert found == value and type(found) is type(value)


def test_the_last_word_of_a_key_holds():
    assert read(["count=4", "deep=true", "count=5"], Options) == Options(count=5, deep=True)


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("cuont=3", "unknown key 'cuont' (did you mean count?), known: place, names, sizes, count,"),
        ("xyz=3", "unknown key 'xyz', known: place, names,"),
        ("count", "'count' is not of the form key=value"),
        ("count=", "count has no value"),
        ("names=", "names has no value"),
        ("names=a,,b", "names=a,,b is not text"),
        ("names=a,", "names=a, is not text"),
        ("count=0", "count=0 is not a whole number of at least 1"),
        ("count=-1", "count=-1 is not a whole number of at least 1"),
        ("count=1.5", "count=1.5 is not a whole number of at least 1"),
        ("count=two", "count=two is not a whole number of at least 1"),
        ("count=1,2", "count=1,2 is not a whole number of at least 1"),
        ("count=${ratio}", "count=${ratio} is not a whole number of at least 1"),
        ("limit=none", "limit=none is not a whole number of at least 1"),
        ("sizes=1,0", "sizes=1,0 is not a whole number of at least 1"),
        ("sizes=1,x", "sizes=1,x is not a whole number of at least 1"),
        ("ratio=0", "ratio=0 is not a number greater than 0"),
        ("share=-1", "share=-1 is not a number greater than 0 or 0"),
        ("share=x", "share=x is not a number greater than 0 or 0"),
        ("ratio=-1", "ratio=-1 is not a number greater than 0"),
        ("ratio=nan", "ratio=nan is not a number greater than 0"),
        ("ratio=inf", "ratio=inf is not a number greater than 0"),
        ("ratio=x", "ratio=x is not a number greater than 0"),
        ("deep=perhaps", "deep=perhaps is not true or false"),
        ("colour=blue", "unknown colour 'blue', known: red, green"),
        ("colours=red,blue", "unknown colours 'blue', known: red, green"),
    ],
)
def test_what_cannot_be_used_is_told(word, answer):
    with pytest.raises(ConfigError) as told:
        read([word], Options)
    assert answer in str(told.value) and "\n" not in str(told.value)


def test_the_words_of_one_dataclass_among_others():
    assert split(["rank=8", "place=x", "-m", "places=y", "place"], Options) == (
        ["place=x"],
        ["rank=8", "-m", "places=y", "place"],
    )


@pytest.mark.parametrize(
    "text", ["a", "a=b", "a,b", "it's", "a b", "\\", "a\\", "\\'", "a\\\\'b", "[x]", "{a: b}", '"', "12"]
)
def test_hydra_reads_a_quoted_value_as_it_is(text):
    (word,) = OverridesParser.create().parse_overrides([f"init_from={quoted(text)}"])
    assert word.value() == text and not word.is_sweep_override()


def test_filters_are_the_columns_that_have_a_value():
    options = read(["results_dir=x,y", "method=tt,cp", "rank=10x", "lr=1e-2"], with_filters(Place))
    assert isinstance(options, Place) and options.results_dir == "x,y"
    assert filters(options) == {"method": ["tt", "cp"], "rank": ["10x"], "lr": ["1e-2"]}
    assert set(COLUMNS) <= set(vars(options))
