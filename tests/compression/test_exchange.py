"""Cores as tensorly's objects and back, against tensorly's own reconstruction, and its algorithms in place of ours."""

from __future__ import annotations

import doctest
import re

import pytest
import tensorly
import torch
from cases import CASES, Case, einsum_dense, random_cores
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac, partial_tucker, tensor_ring_als, tensor_train, tucker
from tensorly.tt_tensor import TTTensor
from torch import Tensor, nn

import tdcompress
from tdcompress.compression import exchange
from tdcompress.compression.tensorly.objects import from_tensorly, to_tensorly
from tdcompress.tensor.contraction.cost import Rates
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS

pytestmark = pytest.mark.usefixtures("one_thread")

KNOWN = [case for case in CASES if FORMATS[case.format].tensorly is not None]
CONV, LINEAR = (12, 8, 3, 2), (12, 8)


def dimensions(case: Case, weight: Tensor) -> Tensor:
    """The weight, (o, i, ..), over the dimensions that are promised: by hand for each layout."""
    if case.layout == "matrix":
        return weight.flatten(1)
    kernel = [weight[0, 0].numel()] if case.kernel == "merged" else list(weight.shape[2:])
    kernel = kernel if weight.dim() > 2 else []
    if case.layout == "channels":
        weight = weight.reshape(12, 8, *kernel)
    elif case.layout == "split":
        weight = weight.reshape(3, 4, 2, 4, *kernel)
    else:
        return weight.reshape(3, 4, 2, 4, -1).transpose(1, 2).reshape(6, 16, *kernel)
    if case.format != "tt" or weight.dim() == 2:
        return weight
    outputs = 1 if case.layout == "channels" else 2  # a longer chain: inputs, kernel, outputs
    inputs_first = [*range(outputs, weight.dim()), *range(outputs)]
    return weight.permute(inputs_first)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 12, (3, 2)), nn.Flatten(), nn.Linear(12, 8))


def held(method: str, **settings: object) -> nn.Module:
    """The network for inputs of (8, 3, 2) with cores in place of what ``settings`` name."""
    settings = {"keep": [], "allow_larger": True, "rates": Rates(), **settings}
    return tdcompress.compress(network(), method, 3, (8, 3, 2), **settings)


def test_docstrings():
    found = doctest.testmod(exchange)
    assert found.attempted > 5 and found.failed == 0


@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_an_object_stands_for_the_weight_and_holds_its_cores(case: Case):
    graph, format = case.graph(3), FORMATS[case.format]
    cores = [core.detach() for core in random_cores(graph)]
    weight = einsum_dense(graph, cores)
    found = to_tensorly(graph, format, cores)
    assert type(found).__name__ == format.tensorly
    with tensorly.backend_context("pytorch"):
        whole = found.to_tensor()
    torch.testing.assert_close(whole, dimensions(case, weight.reshape(CONV if case.kind == "conv" else LINEAR)))
    sized, back = from_tensorly(graph.with_ranks(dict.fromkeys(graph.bonds, 1)), format, found, weight)
    assert sized.ranks == graph.ranks
    torch.testing.assert_close(einsum_dense(sized, back), weight)


def test_layers_and_decompositions_are_given_as_copies():
    weight = normal(*CONV)
    found = tdcompress.decompose(weight, "cp", rank=3, kernel="separate", allow_larger=True)
    layer = held("tucker")[0]
    objects = tdcompress.to_tensorly(found), tdcompress.to_tensorly(layer)
    with tensorly.backend_context("pytorch"):
        torch.testing.assert_close(objects[0].to_tensor(), found.to_dense())
        torch.testing.assert_close(objects[1].to_tensor(), layer.to_dense().detach())
    before = layer.to_dense().detach()
    objects[1].core.zero_()
    assert torch.equal(layer.to_dense(), before)
    with pytest.raises(ConfigError, match="a Linear is no decomposition"):
        tdcompress.to_tensorly(nn.Linear(2, 2))
    graph = Case("ht", "channels", "merged", "linear").graph()
    with pytest.raises(ConfigError, match="tensorly has no ht, it has cp, tr, tt, tucker"):
        to_tensorly(graph, FORMATS["ht"], random_cores(graph))


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
@pytest.mark.parametrize("method", ["cp", "tucker", "tt", "tr"])
def test_what_tensorly_found_for_a_layer_is_taken_by_its_name(method: str, backend: str):
    weight = network()[0].weight.detach()
    with tensorly.backend_context(backend):
        given = weight.numpy() if backend == "numpy" else weight
        found = {
            "cp": lambda: parafac(given, 4, n_iter_max=5, normalize_factors=True),
            "tucker": lambda: tucker(given, [5, 4, 2, 2], n_iter_max=5),
            "tt": lambda: tensor_train(tensorly.moveaxis(given, 0, -1), [1, 4, 5, 3, 1]),
            "tr": lambda: tensor_ring_als(given, [2, 3, 2, 3, 2], n_iter_max=5, random_state=0),
        }[method]()
        whole = torch.as_tensor(found.to_tensor())
    whole = whole.movedim(-1, 0) if method == "tt" else whole
    model = held(method, cores={"0": found})
    torch.testing.assert_close(model[0].to_dense(), whole, rtol=1e-4, atol=1e-5)
    assert type(model[2]) is nn.Linear
    x = normal(2, 8, 3, 2)
    expected = torch.nn.functional.conv2d(x, whole, model[0].bias)
    torch.testing.assert_close(model[0](x), expected, rtol=1e-4, atol=1e-5)
    again = tdcompress.from_tensorly(found, weight)
    assert again.format == method
    assert again.error == pytest.approx(float((whole - weight).norm() / weight.norm()), rel=1e-3)


def test_signs_and_zeros_of_weights_are_kept():
    weights, factors = torch.tensor([2.0, -1.0, 0.0]), [normal(size, 3, seed=size) for size in LINEAR]
    with tensorly.backend_context("pytorch"):
        found = CPTensor((weights, factors))
    dense = tdcompress.from_tensorly(found, normal(*LINEAR)).to_dense()
    torch.testing.assert_close(dense, factors[0] @ weights.diag() @ factors[1].T)


def train(*shape: int) -> TTTensor:
    with tensorly.backend_context("pytorch"):
        return tensor_train(normal(*shape), [1, *[2] * (len(shape) - 1), 1])


def strange() -> TTTensor:
    found = train(8, 6, 12)
    found.factors[1] = found.factors[1][:, :, :1]
    return found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "tr", "cores": {"0": train(8, 6, 12)}}, "layer 0: cores: a TTTensor, for tr it must be tensorly's"),
        ({"method": "tt", "cores": {"9": train(8, 6, 12)}}, "no layer is named 9"),
        ({"method": "tt", "cores": {"0": train(12, 8, 6)}}, "of shape (12, 8, 6), these cores' dimensions are (i: 8,"),
        ({"method": "tt", "cores": {"0": [normal(8, 2)]}}, "a list, for tt it must be tensorly's TTTensor"),
        ({"method": "tt", "cores": {"0": strange()}}, "of shape (2, 6, 1), beside the others it should be (2, 6, 2"),
        ({"method": "ht", "cores": {"0": train(8, 6, 12)}}, "layer 0: tensorly has no ht, it has cp, tr, tt, tucker"),
        ({"method": "ht", "init": "fit", "fit": "tensorly"}, "layer 0: tensorly has no ht, it has cp, tr, tt, tucker"),
        ({"method": "tr", "fit": "tensorly"}, "fit=tensorly says what fits a weight, init=orthogonal fits none"),
        ({"method": "tt", "fit": "tensorli"}, "unknown fit 'tensorli', known: tdcompress, tensorly"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(settings: dict, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        held(**settings)
    assert "\n" not in str(error.value)


def test_a_chain_in_the_order_of_the_weight_is_refused_where_the_sizes_cannot_tell():
    weight = normal(64, 64).cumsum(0).cumsum(1)
    with tensorly.backend_context("pytorch"):
        right, wrong = (tensor_train(w.reshape([4] * 6), [1, 4, 8, 8, 8, 4, 1]) for w in (weight.T, weight))
    assert tdcompress.from_tensorly(right, weight).error < 0.2
    with pytest.raises(ConfigError, match=r"fit the weight as \(o1: 4, o2: 4"):
        tdcompress.from_tensorly(wrong, weight)
    assert tdcompress.from_tensorly(wrong, normal(64, 64)).error > 1  # of another weight there is nothing to tell by


@pytest.mark.parametrize("method", ["cp", "tucker", "tt", "tr"])
def test_a_fit_by_tensorly_is_its_own(method: str):
    weight, usual = network()[0].weight.detach(), tensorly.get_backend()
    model = held(method, init="fit", layers={"0": {"fit": "tensorly"}})
    assert tensorly.get_backend() == usual
    network()
    seed = int(torch.randint(2**31, ()))
    with tensorly.backend_context("pytorch"):
        unit = weight / weight.norm()
        if method == "tucker":
            (core, factors), _ = partial_tucker(unit, [3, 3], [0, 1])
            whole = tensorly.tenalg.multi_mode_dot(core, factors, [0, 1])
        elif method == "tt":
            chain = tensor_train(unit.movedim(0, -1).flatten(1, 2), [1, 3, 3, 1])
            whole = chain.to_tensor().movedim(-1, 0).reshape(CONV)
        else:
            run = parafac if method == "cp" else tensor_ring_als
            whole = run(unit.flatten(2), 3, random_state=seed).to_tensor().reshape(CONV)
    torch.testing.assert_close(model[0].to_dense().detach(), whole * weight.norm(), rtol=1e-3, atol=1e-3)


def test_a_weight_that_is_more_than_its_cores_is_no_object_of_tensorly():
    model = tdcompress.compress(
        nn.Embedding(60, 36, padding_idx=3), "tt", 3, example_inputs=torch.tensor([[4]]), keep=[]
    )
    with pytest.raises(ConfigError, match="more than a product of cores, as with padding_idx"):
        tdcompress.to_tensorly(model)
