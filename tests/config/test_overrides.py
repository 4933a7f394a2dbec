"""What single layers have of their own."""

from __future__ import annotations

import pytest

from tdcompress.config.overrides import for_layer
from tdcompress.config.schema import MethodConfig
from tdcompress.tensor.errors import ConfigError


def test_a_layer_has_what_its_patterns_say_in_their_order():
    layers = {"fc*": {"rank": 4, "format": "cp"}, "*2": {"rank": 2, "in_modes": [4, 8]}}
    method = MethodConfig(format="tt", linear="tr", plan="chain", layers=layers)
    first, rank = for_layer("fc1", method, 8)
    assert (first.format, first.linear, first.in_modes, first.plan, rank) == ("cp", None, None, "chain", 4)
    second, rank = for_layer("fc2", method, 8)
    assert (second.format, second.in_modes, rank) == ("cp", [4, 8], 2)
    assert for_layer("conv1", method, 8) == (method, 8)
    assert layers["fc*"] == {"rank": 4, "format": "cp"}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        (3, "method.layers.fc={} is not like"),
        ({"factros": 2}, "unknown key 'method.layers.fc.factros' (did you mean method.layers.fc.factors?), known in"),
        ({"decay": "scaled"}, "unknown key 'method.layers.fc.decay'"),
        ({"factors": "two"}, "method.layers.fc.factors: Value 'two' of type 'str' could not be converted to Integer"),
        ({"rank": "10x"}, "is a budget of the whole network"),
        ({"rank": 0}, "must be at least 1"),
    ],
)
def test_what_a_layer_cannot_have_is_told(changes, answer):
    with pytest.raises(ConfigError) as told:
        for_layer("fc", MethodConfig(layers={"fc": changes}), 8)
    assert answer.format(changes) in str(told.value)
