"""The chains written by hand compute what the layers do."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, IMAGE, IN, Case, assert_close, einsum_dense
from torch import nn

from tdcompress import compress
from tdcompress.bench.rivals.hand import hand_chain, hand_network, links

pytestmark = pytest.mark.usefixtures("one_thread")

CHAINS = [case for case in CASES if links(case.graph()) is not None]


def test_which_formats_have_a_hand_chain():
    whole = {"channels-merged-linear", "matrix-merged-conv", "matrix-merged-linear"}  # channel counts not split
    kernels = {"channels-merged-conv", "channels-separate-conv"}
    assert {str(case) for case in CHAINS} == {
        *(f"{format}-{rest}" for format in ("cp", "tt") for rest in whole | kernels),
        *(f"{format}-{rest}" for format in ("tucker", "ht") for rest in whole | {"channels-open-conv"}),
    }


@pytest.mark.parametrize("case", CHAINS, ids=str)
def test_the_hand_chain_computes_the_layer(case: Case):
    torch.manual_seed(0)
    settings = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)} if case.kind == "conv" else {}
    layer = case.layer(twin=case.twin(**settings))
    chain = hand_chain(layer)
    shape = (4, IN, *IMAGE) if case.kind == "conv" else (4, IN)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    weight = einsum_dense(layer.graph, layer.tensors()).reshape(layer.weight_shape)
    wanted = (
        nn.functional.conv2d(x, weight, layer.bias, **settings)
        if case.kind == "conv"
        else nn.functional.linear(x, weight, layer.bias)
    )
    got = chain(z)
    assert_close(got, wanted)
    gradient = torch.randn_like(got)
    wanted.backward(gradient)
    got.backward(gradient)
    assert_close(z.grad, x.grad)
    assert_close(chain.bias.grad, layer.bias.grad)
    for link, kernel in zip(chain.links, chain.weights, strict=True):
        core = layer.tensors()[link.core]
        assert_close(kernel.grad.reshape(-1), core.grad.permute(link.order).reshape(-1))


def test_a_hand_chain_makes_no_copies():
    layer = compress(nn.Sequential(nn.Conv2d(8, 12, 3)), "tucker", 4, (8, 6, 6), keep=[])[0]
    for kernel in hand_chain(layer).weights:
        assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_every_convolution_of_a_network_is_written_by_hand_or_none():
    def network():
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 6))

    images = torch.randn(2, 4, 8, 8)
    model = compress(network(), "tucker", 3, (4, 8, 8), keep=[])
    torch.testing.assert_close(hand_network(model)(images), model(images), rtol=1e-4, atol=1e-5)
    ring = {"format": "tr", "allow_larger": True}
    assert hand_network(compress(network(), "tucker", 3, (4, 8, 8), keep=[], layers={"2": ring})) is None
    mixed = compress(network(), "tucker", 3, (4, 8, 8), keep=[], layers={"4": ring})
    torch.testing.assert_close(hand_network(mixed)(images), mixed(images), rtol=1e-4, atol=1e-5)
    assert hand_network(network()) is None
