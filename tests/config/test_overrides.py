"""What single layers have of their own."""

from __future__ import annotations

import pytest

from tdcompress.config.overrides import for_layer
from tdcompress.config.schema import MethodConfig, layer_ranks
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.rank import Rank, Size


def held(name: str, method: MethodConfig) -> tuple[MethodConfig, Rank]:
    return for_layer(name, method, Size(8), layer_ranks(method))


def test_a_layer_has_what_its_patterns_say_in_their_order():
    layers = {"fc*": {"rank": 4, "format": "cp"}, "*2": {"rank": 2, "in_modes": [4, 8]}}
    method = MethodConfig(format="tt", linear="tr", plan="chain", layers=layers)
    first, rank = held("fc1", method)
    assert (first.format, first.linear, first.in_modes, first.plan, rank) == ("cp", None, None, "chain", Size(4))
    second, rank = held("fc2", method)
    assert (second.format, second.in_modes, rank) == ("cp", [4, 8], Size(2))
    assert held("conv1", method) == (method, Size(8))
    assert layers["fc*"] == {"rank": 4, "format": "cp"}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        (3, "method.layers.fc={} is not like"),
        ({"factros": 2}, "unknown key 'method.layers.fc.factros' (did you mean method.layers.fc.factors?), known in"),
        ({"decay": "scaled"}, "unknown key 'method.layers.fc.decay'"),
        ({"factors": "two"}, "method.layers.fc.factors=two is not a whole number"),
        ({"rank": "10x"}, "is a budget of the whole network"),
        ({"rank": 0}, "must be at least 1"),
    ],
)
def test_what_a_layer_cannot_have_is_told(changes, answer):
    with pytest.raises(ConfigError) as told:
        held("fc", MethodConfig(layers={"fc": changes}))
    assert answer.format(changes) in str(told.value)
