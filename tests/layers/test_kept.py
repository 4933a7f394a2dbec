"""What a layer keeps while it infers: right whatever happens to its cores, and merged once."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from cases import CASES, FACTORISED, IMAGE, IN, Case, assert_close, einsum_dense
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tdcompress
from tdcompress.layers.base import Factorised

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRED = Case("tt", "paired", "merged", "conv")


def example(case: Case, batch: int = 2) -> Tensor:
    shape = (batch, IN, *IMAGE) if case.kind == "conv" else (batch, IN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def wanted(layer: Factorised, twin: nn.Module, x: Tensor) -> Tensor:
    """What torch computes with the cores as they are now, by one einsum."""
    weight = einsum_dense(layer.graph, [core.detach() for core in layer.tensors()]).reshape(layer.weight_shape)
    return torch.func.functional_call(twin.double(), {"weight": weight, "bias": layer.bias.detach()}, (x,))


class Operations(TorchDispatchMode):
    """Counts the operations that are dispatched while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def products(call: Callable[[], object]) -> int:
    """How many matrix products and convolutions a call makes."""
    with Operations() as seen:
        call()
    return sum(any(word in name for word in ("mm", "convolution")) for name in seen.names)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_inference_computes_the_same_for_every_batch(case: Case):
    twin = case.twin()
    layer = case.layer(twin=twin).eval()
    with torch.no_grad():
        for batch in (2, 1, 5, 64, 2, 0, *range(1, 20), 2):
            x = example(case, batch)
            assert_close(layer(x), wanted(layer, twin, x))


def test_cores_are_merged_once():
    layer, x = PAIRED.layer(plan="dense").eval(), example(PAIRED)
    with torch.no_grad():
        first, second = products(lambda: layer(x)), products(lambda: layer(x))
    assert second == 1 < first  # the convolution alone
    assert products(lambda: layer(x)) == first  # with gradients nothing is kept
    with torch.no_grad():
        assert products(lambda: layer(x)) == first  # nor from before


def test_a_convolution_in_groups_is_put_together_once():
    twin = PAIRED.twin(groups=2, padding=1)
    layer, x = PAIRED.layer(twin=twin).eval(), example(PAIRED)
    with torch.no_grad():
        layer(x)
        assert products(lambda: layer(x)) == 1
        assert_close(layer(x), wanted(layer, twin, x))


def loaded(layer: Factorised) -> None:
    layer.load_state_dict({name: value + 0.5 for name, value in layer.state_dict().items()})


def in_place(layer: Factorised) -> None:
    for core in layer.tensors():
        core.mul_(1.5)


def by_data(layer: Factorised) -> None:
    for core in layer.tensors():
        core.data = core.data + 0.25


def trained(layer: Factorised) -> None:
    """A step of a fused optimizer, which leaves no trace in the cores' versions."""
    layer.train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=True)
    with torch.enable_grad():
        layer(example(PAIRED)).square().sum().backward()
    optimizer.step()
    layer.eval()


def trained_in_evaluation_mode(layer: Factorised) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        layer(example(PAIRED)).square().sum().backward()
    optimizer.step()


def trained_after_another_input(layer: Factorised) -> None:
    """The same, inferring once more between the gradients and the step."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        layer(example(PAIRED)).square().sum().backward()
    layer(example(PAIRED))
    optimizer.step()


def written_to_what_is_kept(layer: Factorised) -> None:
    layer.weight.clamp_(-1e-3, 1e-3)


def pruned(layer: Factorised) -> None:
    nn.utils.prune.l1_unstructured(layer.cores, layer.graph.cores[0].name, 0.5)


def resized(layer: Factorised) -> None:
    graph = layer.graph.with_ranks(dict.fromkeys(layer.graph.bonds, 2))
    layer.resize(graph, [torch.randn(graph.shape(core), dtype=torch.float64) for core in graph.cores])


def moved(layer: Factorised) -> None:
    layer.float().double()


def another_bias(layer: Factorised) -> None:
    layer.bias = nn.Parameter(layer.bias.detach() + 1)


def written_bias(layer: Factorised) -> None:
    layer.bias.data = layer.bias.detach() + 1


CHANGES = [
    *(loaded, in_place, by_data, trained, trained_in_evaluation_mode, trained_after_another_input, resized, moved),
    *(another_bias, written_bias, written_to_what_is_kept, pruned),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_cores_is_seen(change: Callable[[Factorised], None]):
    twin, x = PAIRED.twin(), example(PAIRED)
    layer = PAIRED.layer(twin=twin).eval()
    with torch.no_grad():
        layer(x)
        change(layer)
        torch.testing.assert_close(layer(x), wanted(layer, twin, x), rtol=1e-9, atol=1e-9)


def test_other_cores_for_one_call():
    twin, x = PAIRED.twin(), example(PAIRED)
    layer = PAIRED.layer(twin=twin).eval()
    other = {name: value.detach() + 1 for name, value in layer.named_parameters()}
    with torch.no_grad():
        before = layer(x)
        found = torch.func.functional_call(layer, other, (x,))
        assert torch.equal(layer(x), before)
        stacked = {name: torch.stack([value.detach(), other[name]]) for name, value in layer.named_parameters()}
        both = torch.func.vmap(lambda values: torch.func.functional_call(layer, values, (x,)))(stacked)
        layer.load_state_dict(other)
        assert_close(found, wanted(layer, twin, x))
    assert_close(both[0], before)
    assert_close(both[1], found)


@pytest.mark.parametrize("method", FACTORISED)
def test_an_ensemble_of_cores_is_mapped_over(method: str):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 32, 3), nn.Conv2d(32, 32, 3))
    tdcompress.compress(model, method, 4, (8, 8, 8), keep=[])
    images = torch.randn(2, 8, 8, 8)
    stacked = {name: torch.stack([value, 1.1 * value]) for name, value in model.named_parameters()}
    both = torch.func.vmap(lambda values: torch.func.functional_call(model, values, (images,)))(stacked)
    torch.testing.assert_close(both[0], model(images), rtol=1e-4, atol=1e-4)
    torch.nn.utils.vector_to_parameters(
        1.1 * torch.nn.utils.parameters_to_vector(model.parameters()), model.parameters()
    )
    torch.testing.assert_close(both[1], model(images), rtol=1e-4, atol=1e-4)


def test_copies_keep_nothing_of_one_another():
    layer, x = PAIRED.layer().eval(), example(PAIRED)
    with torch.inference_mode():
        before = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            in_place(other)
            assert not torch.allclose(other(x), before)
            assert torch.equal(layer(x), before)
    assert set(layer.state_dict()) == {"bias", *(f"cores.{core.name}" for core in layer.graph.cores)}


def test_under_autocast_and_back():
    layer, x = PAIRED.layer().float().eval(), example(PAIRED).float()
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            low = layer(x)
        assert torch.equal(layer(x), exact)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).norm() < 3 * 2**-8 * exact.norm()


def test_weights_of_a_convolution_in_groups_are_nobody_elses_to_change():
    torch.manual_seed(0)
    model = tdcompress.compress(nn.Sequential(nn.Conv2d(16, 64, 3, groups=2)), "tt", 4, (16, 8, 8), keep=[]).eval()
    images = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        before = model(images)
        model[0].weight.zero_()
        assert model(images).equal(before)
        model[0].weight.data.zero_()
        assert model(images).equal(before)


@pytest.mark.parametrize("method", FACTORISED)
def test_forward_derivatives_by_the_cores_without_gradients(method: str):
    layer = tdcompress.compress(nn.Linear(64, 64), method, 2, (64,), keep=[]).double().eval()
    values = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    tangents = {name: torch.randn_like(value) for name, value in values.items()}
    x, step = torch.randn(2, 64, dtype=torch.float64), 1e-6
    near = [{name: value + sign * step * tangents[name] for name, value in values.items()} for sign in (1, -1)]
    more, less = (torch.func.functional_call(layer, one, (x,)) for one in near)
    with torch.no_grad(), forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(value, tangents[name]) for name, value in values.items()}
        found = forward_ad.unpack_dual(torch.func.functional_call(layer, dual, (x,))).tangent
    torch.testing.assert_close(found, (more - less) / (2 * step), rtol=1e-6, atol=1e-7)


def test_inference_mode():
    with torch.inference_mode():
        cores = tdcompress.compress(nn.Sequential(nn.Linear(64, 64)), "tt", 3, (64,), keep=[]).eval()
        before = cores(torch.ones(1, 64)) - cores[0].bias
        cores[0].cores.core1.mul_(2)
        torch.testing.assert_close(cores(torch.ones(1, 64)) - cores[0].bias, 2 * before)
    cores = tdcompress.compress(nn.Sequential(nn.Linear(64, 64)), "tt", 3, (64,), keep=[]).eval()
    with torch.inference_mode():
        kept = cores[0].weight.clone()
    with torch.no_grad():
        assert not cores[0].weight.is_inference()
        assert torch.equal(cores[0].weight, kept)


def test_without_values_there_are_shapes():
    model = tdcompress.compress(nn.Sequential(nn.Linear(64, 32), nn.LSTM(32, 8)), "tt", 2, (5, 64), keep=[]).eval()
    model.to("meta")
    with torch.no_grad():
        assert model(torch.randn(5, 64, device="meta"))[0].shape == (5, 8) and model[0].weight.shape == (32, 64)


def test_a_network_that_infers_is_traced():
    model = tdcompress.compress(nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 10)), "tt", 8, (64,)).eval()
    inputs = torch.randn(4, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, inputs)(inputs), model(inputs))


def test_a_network_that_is_compiled_or_exported_keeps_nothing():
    torch.compiler.reset()
    layer, x = PAIRED.layer().eval(), example(PAIRED)
    with torch.no_grad():
        expected = layer(x)
        assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), expected)
        program = torch.export.export(layer, (x,))
        assert_close(program.module()(x), expected)


def test_a_recurrent_layer_merges_once_for_all_passes():
    settings = {"keep": [], "allow_larger": True, "layout": "matrix", "plan": "chain"}
    model = tdcompress.compress(nn.LSTM(8, 16), "tt", 2, (5, 8), **settings).eval()
    x = torch.randn(5, 2, 8)
    with torch.no_grad():
        model(x)
        again = products(lambda: model(x))
        inputs = products(lambda: model.ih_l0(x))
    assert again == inputs + 5 * len(model.hh_l0.plan.steps)
