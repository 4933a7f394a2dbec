"""What cannot be compressed is refused in one line, and left as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import SHAPE, Net, swapped
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from tdcompress import compress, count, fold, report, save, switch
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

REFUSED = [
    ("nonsense", 4, {}, "nonsense.*cp, dense, ht, tr, tt, tucker"),
    ("tt", 4, {"layout": "rows"}, "layer body.0.conv.*rows.*channels, matrix, split, paired"),
    ("tt", 4, {"kernel": "ajar"}, "layer body.0.conv.*ajar.*merged, separate, open"),
    ("tt", 4, {"kernel": "open", "layout": "channels"}, "layer body.0.conv.*open.*ht, tucker.*tt"),
    ("tt", 4, {"plan": "luck"}, "layer body.0.conv.*luck.*model, measure, contract, chain, dense"),
    ("tt", 4, {"init": "zeros"}, "layer body.0.conv.*zeros.*variance, orthogonal"),
    ("tt", 4, {"colour": "red"}, "colour.*layout"),
    ("tt", 4, {"layout": "split", "in_modes": [3, 5]}, "layer body.0.conv.*product 15.*16"),
    ("tt", 4, {"layout": "split", "in_modes": [4, 4]}, "layer hidden.*product 16.*288"),  # after two that fit
    ("tt", 4, {"layout": "paired", "factors": 1, "kernel": "open"}, "layer body.0.conv"),
    ("tt", 4, {"layout": "split", "factors": 0}, "factors"),
    ("tt", 4, {"layout": "split", "in_modes": [-4, -4]}, "in_modes"),
    ("tt", 4, {"layout": "channels", "in_modes": [4, 4]}, r"conv: in_modes=\[4, 4\] splits channels, layout=channels"),
    ("cp", 4, {"layers": {"hidden": {"out_modes": [8, 8], "layout": "matrix"}}}, "layer hidden: out_modes=.*use split"),
    ("tt", 4, {"decay": "foo"}, "unknown decay 'foo', known: factors, scaled, frobenius"),
    ("tt", 4, {"decay": "frobenius"}, "decay is of tdc train's optimizer"),
    ("tt", 4, {"layers": {"hidden": {"size": 3}}}, r"unknown key 'method\.layers\.hidden\.size'.*known in.* rank,"),
    ("tt", 4, {"layers": {"hidden": {"decay": "scaled"}}}, r"unknown key 'method\.layers\.hidden\.decay'.* rank,"),
    ("tt", 4, {"layers": {"head": {"rnak": 3}}}, r"unknown key 'method\.layers\.head\.rnak'.*mean.*head\.rank"),
    ("tt", 4, {"layers": {"hidden": {"in_modes": 288}}}, "layer hidden: method.layers.hidden.in_modes is not a list"),
    ("tt", 4, {"layers": {"hea*": {"rank": 4}}}, "layers: head stays dense"),
    ("tt", 4, {"layers": {"hidden": 4}}, "method.layers.hidden=4.*rank: 4"),
    ("tt", 4, {"layers": {"hiden": {"rank": 4}}}, "layers: no layer is named hiden; there are .*hidden"),
    ("tt", 4, {"keep": ["stem", "fc*"]}, r"keep: no layer is named fc\*; there are stem"),
    ("tt", 4, {"layers": {"hidden": {"format": "nonsense"}}}, "layer hidden.*nonsense.*tucker"),
    ("tt", "many", {}, "many.*reference"),
    ("tt", 2.5, {}, "2.5"),
    ("tt", 0, {}, "rank.*0"),
    ("tt", -3, {}, "rank.*-3"),
    ("tt", True, {}, "rank.*True"),
    ("tt", 4, {"keep": [0]}, "keep: names of layers, or patterns of them, are strings, not 0"),
    ("tt", 4, {"keep": 0}, "keep: names of layers.*not 0"),
    ("tt", 4, {"allow_larger": "perhaps"}, "allow_larger=perhaps is not true or false"),
    ("tt", 4, {"checkpoint": 3.5}, "checkpoint"),
    ("tt", 4, {"in_modes": 8}, "in_modes is not a list"),
    ("tt", 4, {"factors": "x"}, "factors=x is not a whole number"),
    ("tt", 4, {"layers": ["hidden"]}, "layers: settings of single layers by their names"),
    ("tt", 4, {"batch_size": 0}, "batch_size=0 is no number of inputs"),
    ("tt", 4, {"batch_size": "x"}, "batch_size='x' is no number of inputs"),
    ("tt", 4, {"rates": 3}, "rates=3 are no Rates of a device"),
    ("tt", 4, {"progress": 5}, "progress=5 is no function of the names of layers"),
    ("tt", 4, {"cores": {}}, "cores: for each layer that is to hold some"),
    ("tt", 4, {"cores": {"hidden": None}}, "cores: for each layer that is to hold some"),
    ("tt", 4, {"cores": {"hidden": {"core1": [1.0]}}}, "layer hidden: cores: core1 is a list, not a tensor"),
    (
        "tt",
        4,
        {"cores": {"hidden": {"core1": torch.full((2, 2), math.nan)}}},
        "layer hidden: .* 4 entries .* not finite",
    ),
    (None, 4, {}, "method is the name of a format or a MethodConfig, got None"),
]


@pytest.mark.parametrize(("method", "rank", "settings", "said"), REFUSED, ids=lambda v: str(v)[:40])
def test_bad_values_are_refused_in_one_line(method: str, rank: object, settings: dict, said: str):
    with pytest.raises(ConfigError, match=said) as error:
        compress(Net(), method, rank, SHAPE, **settings)
    assert "\n" not in str(error.value)


def test_a_refused_model_is_left_as_it_was():
    model = Net()
    with pytest.raises(ConfigError, match="layer hidden"):
        compress(model, "tt", 4, SHAPE, layout="split", in_modes=[4, 4])
    assert swapped(model) == {}


def test_an_unknown_format_is_refused_even_where_nothing_is_swapped():
    with pytest.raises(ConfigError, match=r"nonsense.*tucker"):
        compress(Net(), "nonsense", 4, SHAPE, keep=["*"])


def test_settings_as_they_may_come():
    model = compress(Net(), "tt", 4, SHAPE, keep=(name for name in ["stem", "head"]), allow_larger="false")
    assert {"stem", "head"}.isdisjoint(swapped(model)) and "hidden" in swapped(model)
    modes = {"layout": "split", "in_modes": np.array([4, 72]), "factors": np.int64(2)}
    assert "hidden" in swapped(compress(Net(), "tt", 4, SHAPE, keep=["stem", "head", "body*"], **modes))


def test_what_stays_dense_may_hold_anything():
    model = Net()
    with torch.no_grad():
        model.hidden.weight[0, 0] = math.nan
    with pytest.raises(ConfigError, match="layer hidden: its weight holds 1 entries"):
        compress(model, "tt", 4, SHAPE)
    assert "hidden" not in swapped(compress(model, "tt", 4, SHAPE, keep=["hidden"]))


@pytest.mark.parametrize("ask", [count, fold, save, report], ids=lambda ask: ask.__name__)
def test_what_is_no_model(ask):
    more = {save: ["x.safetensors"], report: []}.get(ask, [SHAPE])
    with pytest.raises(ConfigError, match=r"a model is a torch\.nn\.Module, got int"):
        ask(5, *more)


@pytest.mark.parametrize("shape", [(3, 8), (1, 8, 8), (3, 2, 2), (8,)], ids=str)
def test_an_input_the_model_cannot_take(shape: tuple[int, ...]):
    with pytest.raises(ConfigError, match="input"):
        compress(Net(), "tt", 4, shape)


def test_what_keeps_to_its_parameters_is_not_given_others(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Net())
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        for call in (lambda: compress(wrapped, "tt", 4, SHAPE), lambda: switch(wrapped, optimizer, "tt", 4, SHAPE)):
            with pytest.raises(ConfigError, match="DistributedDataParallel keeps to the parameters"):
                call()
        assert not swapped(wrapped) and swapped(compress(wrapped.module, "tt", 4, SHAPE))
    finally:
        torch.distributed.destroy_process_group()


def test_what_is_sharded_is_told_so(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        dense, held = Net(), compress(Net(), "tt", 4, SHAPE)
        fully_shard(dense)
        fully_shard(held)
        calls = (lambda: compress(dense, "tt", 4, SHAPE), lambda: fold(held, SHAPE))
        for call in (*calls, lambda: save(held, tmp_path / "x.safetensors")):
            with pytest.raises(ConfigError, match="the model is sharded by fully_shard: compress before that"):
                call()
        assert held(torch.randn(2, *SHAPE)).isfinite().all()
    finally:
        torch.distributed.destroy_process_group()


def test_a_model_that_objects_in_its_own_way():
    class Picky(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(ConfigError, match=r"cannot take an input of shape \(3, 8, 8\): AssertionError"):
        compress(Picky(), "tt", 4, SHAPE)


class Auxiliary(nn.Module):
    """A network that has a second head while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aux, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x):
        x = self.body(x)
        return (self.out(x), self.aux(x)) if self.training else self.out(x)


def test_a_layer_that_the_inputs_do_not_reach_may_be_kept_and_is_given_no_rank():
    model = compress(Auxiliary(), "tt", 4, (64,), keep=["aux", "out"])
    assert type(model.aux) is nn.Linear and not isinstance(model.body, nn.Linear)
    with pytest.raises(ConfigError, match=r"^layers: the inputs do not reach au\*$"):
        compress(Auxiliary(), "tt", 4, (64,), layers={"au*": {"rank": 2}})
    with pytest.raises(ConfigError, match=r"^keep: no layer is named axu; there are body, out, aux$"):
        compress(Auxiliary(), "tt", 4, (64,), keep=["aux", "axu"])
