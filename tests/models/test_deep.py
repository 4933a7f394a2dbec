"""Residual networks, the vision transformer and torchvision's: sizes counted by hand, and what they cannot take."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tdcompress.config.schema import ArchConfig
from tdcompress.models.build import build
from tdcompress.models.resnet import RESNET
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet56": 9}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def names(model, *kinds):
    return [name for name, layer in model.named_modules() if isinstance(layer, kinds)]


@pytest.mark.parametrize(("name", "depth"), [("resnet20", 20), ("resnet32", 32), ("resnet56", 56)])
def test_resnets_of_three_stages(name, depth):
    model = build(ArchConfig(name), 3, 10, 32)
    n = BLOCKS[name]
    kernels = 3 * 16 + 2 * n * 16 * 16 + 16 * 32 + (2 * n - 1) * 32 * 32 + 32 * 64 + (2 * n - 1) * 64 * 64
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert parameters(model) == 9 * kernels + norms + 65 * 10
    assert len(names(model, nn.Conv2d, nn.Linear)) == depth  # option A: no weights beside them
    assert parameters(model) == {20: 269_722, 32: 464_154, 56: 853_018}[depth]


def test_resnet18_in_its_form_for_small_images():
    model = build(ArchConfig("resnet18"), 3, 10, 32)
    assert parameters(model) == 11_173_962  # 11,181,642 of torchvision's, less 7x7 for 3x3 in the first convolution
    assert model.block4_1(torch.rand(1, 256, 8, 8)).shape == (1, 512, 4, 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shortcut_without_parameters(stride):
    block = build(ArchConfig("resnet20"), 3, 10, 32).eval().get_submodule(f"block{stride}_1")
    x = torch.randn(2, 16, 8, 8)
    h = F.relu(block.norm1(F.conv2d(x, block.conv1.weight, stride=stride, padding=1)))
    h = block.norm2(F.conv2d(h, block.conv2.weight, padding=1))
    around = torch.zeros_like(h)
    first = (h.shape[1] - 16) // 2
    around[:, first : first + 16] = x[:, :, ::stride, ::stride]
    assert torch.allclose(block(x), F.relu(h + around))


def test_vision_transformer_counted_by_hand():
    model = build(ArchConfig("vit_small"), 3, 10, 32)
    d = 384
    block = 4 * d * d + 4 * d + 8 * d * d + 5 * d + 4 * d
    assert parameters(model) == (3 * 16 * d + d) + d + 65 * d + 12 * block + 2 * d + 10 * d + 10
    small = build(ArchConfig("vit_small", width=0.1), 3, 10, 64).eval()
    assert small(torch.rand(2, 3, 64, 64)).shape == (2, 10) and small.fc.in_features == 36


@pytest.mark.parametrize("name", [*RESNET, "vit_small"])
def test_gradients_reach_every_weight(name):
    torch.manual_seed(0)
    model = build(ArchConfig(name, width=0.1), 1, 3, 16)
    model(torch.randn(4, 1, 16, 16)).square().mean().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in model.parameters())


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v3_small", 32), ("vit_b_32", 64), ("googlenet", 32)])
def test_torchvisions(name, size):
    model = build(ArchConfig("torchvision", model=name), 3, 7, size).train()
    assert model(torch.rand(2, 3, size, size)).shape == (2, 7)  # one output, also in training


@pytest.mark.parametrize(
    ("arch", "channels", "size", "message"),
    [
        ({"name": "resnet20", "head": "trl"}, 3, 32, "arch=resnet20 has no head to choose: leave arch.head=trl out"),
        ({"name": "resnet20", "batch_norm": False}, 3, 32, "arch=resnet20 has no batch_norm to choose"),
        ({"name": "lenet5", "model": "resnet50"}, 1, 28, "arch=lenet5 has no model to choose"),
        ({"name": "lenet", "hidden": 64}, 1, 28, "arch=lenet has no hidden to choose"),
        ({"name": "vgg16", "frames": 7}, 3, 32, "arch=vgg16 has no frames to choose"),
        ({"target": {"_target_": "torch.nn.Identity"}, "width": 0.5}, 3, 32, "arch.target has no width to choose"),
        ({"name": "vit_small"}, 3, 28, r"8x8 patches, which 28 pixels do not give \(dataset.image_size=32\)"),
        ({"name": "torchvision", "model": "resnet51"}, 3, 32, "unknown arch.model 'resnet51', .* resnet50"),
        ({"name": "torchvision", "model": "raft_small"}, 3, 32, "unknown arch.model 'raft_small'"),
        ({"name": "torchvision", "model": "resnet18"}, 1, 32, "images of 3 channels, not 1"),
        ({"name": "torchvision", "model": "resnet18", "width": 0.5}, 3, 32, "arch=torchvision has no width to choose"),
        ({"name": "torchvision", "model": "vit_b_16"}, 3, 28, "arch.model=vit_b_16: Input shape indivisible"),
    ],
)
def test_what_they_cannot_take(arch, channels, size, message):
    with pytest.raises(ConfigError, match=message):
        build(ArchConfig(**arch), channels, 10, size)
