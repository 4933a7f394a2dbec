"""Sizes counted by hand, and inputs that a network cannot take."""

import itertools
import sys
import types

import pytest
import torch
from torch import nn

from tdcompress.config.schema import ArchConfig
from tdcompress.models.build import ARCHS, build
from tdcompress.models.dropout import Dropout
from tdcompress.models.recurrent import RECURRENT
from tdcompress.models.resnet import RESNET
from tdcompress.tensor.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

STAGE_SIZES = (2, 2, 3, 3, 3)  # of VGG-16
VGG16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
STAGES = {  # table 1 of Simonyan and Zisserman 2015, columns A, B, D, E
    "vgg11": [64, 128, 256, 256, 512, 512, 512, 512],
    "vgg13": [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    "vgg16": VGG16,
    "vgg19": [64, 64, 128, 128, *[256] * 4, *[512] * 8],
}
SMALLEST = {"lenet": 6, "lenet5": 12, **dict.fromkeys(STAGES, 32)}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def names(model, *kinds):
    return [name for name, layer in model.named_modules() if isinstance(layer, kinds)]


def test_every_arch_is_tested():  # the recurrent ones in test_recurrent.py, the others in test_deep.py
    assert set(ARCHS) == {*SMALLEST, *RECURRENT, *RESNET, "vit_small", "torchvision"}


def test_lenet_is_the_references():
    model = build(ArchConfig("lenet"), 1, 10, 28)
    assert (model.fc1.in_features, model.fc1.out_features) == (9216, 128)
    assert parameters(model) == (9 + 1) * 32 + (32 * 9 + 1) * 64 + (9216 + 1) * 128 + (128 + 1) * 10 == 1_199_882
    assert names(model, nn.Conv2d, nn.Linear) == ["conv1", "conv2", "fc1", "fc2"]
    kinds = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.MaxPool2d, nn.ReLU, Dropout, nn.Flatten, nn.Linear, nn.ReLU]
    assert [type(layer) for layer in model] == [*kinds, Dropout, nn.Linear]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.25, 0.5]


def test_lenet5_is_the_literatures():
    model = build(ArchConfig("lenet5"), 1, 10, 28)
    weights = 25 * 20 + 20 * 25 * 50 + 1250 * 320 + 320 * 10
    assert weights == 428_700
    assert parameters(model) == weights + 20 + 50 + 320 + 10 == 429_100


@pytest.mark.parametrize("name", STAGES)
def test_vgg_counted_by_hand(name):
    model = build(ArchConfig(name), 3, 10, 32)
    sizes = [3, *STAGES[name]]
    convolutions = sum(9 * i * o + 2 * o for i, o in itertools.pairwise(sizes))  # batch norm, no bias
    assert parameters(model) == convolutions + 512 * 128 + 128 + 128 * 10 + 10
    assert [model.get_submodule(n).out_channels for n in names(model, nn.Conv2d)] == STAGES[name]
    assert len(names(model, nn.MaxPool2d)) == 5


def test_vgg_layers_have_names_to_read_and_come_in_order():
    model = build(ArchConfig("vgg16"), 3, 10, 32)
    assert names(model, nn.Conv2d)[4:8] == [
        "features.conv3_1",
        "features.conv3_2",
        "features.conv3_3",
        "features.conv4_1",
    ]
    assert names(model, nn.Linear) == ["classifier.fc1", "classifier.fc2"]
    layers = [type(layer) for layer in model.features]
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert layers[:7] == [*block, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU]
    head = [Dropout, nn.Linear, nn.ReLU, Dropout, nn.Linear]
    assert [type(layer) for layer in model.classifier] == head
    assert [layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)] == [0.25, 0.25]


def test_vgg_without_batch_norm_has_biases():
    model = build(ArchConfig("vgg11", batch_norm=False), 3, 10, 32)
    assert not names(model, nn.BatchNorm2d)
    assert all(model.get_submodule(name).bias is not None for name in names(model, nn.Conv2d))


def test_width_multiplies_hidden_channels_only():
    model = build(ArchConfig("lenet", width=0.5), 3, 7, 28)
    sizes = [(layer.weight.shape[1], layer.weight.shape[0]) for layer in model if hasattr(layer, "weight")]
    assert sizes == [(3, 16), (16, 32), (32 * 12 * 12, 64), (64, 7)]
    wide = build(ArchConfig("vgg11", width=0.25), 1, 4, 32)
    assert [wide.get_submodule(n).out_channels for n in names(wide, nn.Conv2d)] == [s // 4 for s in STAGES["vgg11"]]
    assert wide.classifier.fc1.out_features == 32
    tiny = build(ArchConfig("vgg11", width=1e-3), 1, 4, 32)  # at least one channel
    assert tiny.eval()(torch.rand(1, 1, 32, 32)).shape == (1, 4)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_input_works_and_one_less_is_refused(name):
    size, config = SMALLEST[name], ArchConfig(name, width=0.05)
    for image_size in (size, size + 1, size + 9):
        model = build(config, 2, 5, image_size).eval()
        assert model(torch.rand(3, 2, image_size, image_size)).shape == (3, 5)
    for image_size in (size - 1, 1):
        with pytest.raises(ConfigError, match=rf"arch={name} leaves nothing .* at least {size}x{size} pixels"):
            build(config, 2, 5, image_size)


@pytest.mark.parametrize("name", [*SMALLEST, *RECURRENT])
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = build(ArchConfig(name, width=0.1), 1, 3, 64).to(memory_format=torch.channels_last)
    images = torch.randn(6, 1, 64, 64)
    given = images.clone()
    model(images).square().mean().backward()
    assert torch.equal(images, given)  # in-place layers do not touch the input
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_batch_norm_keeps_the_scale_through_vgg16_in_training():
    torch.manual_seed(0)
    model = build(ArchConfig("vgg16", width=0.25), 3, 10, 32).train()
    sizes = []
    for name in names(model.features, nn.ReLU):
        model.features.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output: sizes.append(output.detach().square().mean().item())
        )
    model(torch.randn(32, 3, 32, 32))
    assert len(sizes) == 13
    after_pooling = [sum(STAGE_SIZES[: stage + 1]) - 1 for stage in range(5)]
    assert all(0.4 < size < 0.6 for k, size in enumerate(sizes) if k not in after_pooling)  # half of a unit variance
    # The largest of four unit normals: 1.55 if they are independent.
    assert all(1.4 < sizes[k] < 1.7 for k in after_pooling)


@pytest.mark.parametrize("name", SMALLEST)
def test_pooling_first_changes_nothing(name):
    torch.manual_seed(0)
    model = build(ArchConfig(name, width=0.2), 1, 3, 32).eval()
    other = [(key, layer) for key, layer in model.named_modules() if not list(layer.children())]
    for k, (_, layer) in enumerate(other[:-1]):
        if isinstance(layer, nn.MaxPool2d):
            assert isinstance(other[k + 1][1], nn.ReLU)
            other[k : k + 2] = [other[k + 1], other[k]]
    images = torch.randn(4, 1, 32, 32)
    assert torch.equal(model(images), nn.Sequential(*(layer for _, layer in other))(images))


def test_unknown_arch():
    with pytest.raises(ConfigError, match=f"unknown arch 'resnet', known: {', '.join(sorted(ARCHS))}"):
        build(ArchConfig("resnet"), 3, 10, 32)


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("own_arch")
    module.Net = lambda in_channels, classes, image_size, hidden=1: nn.Linear(
        in_channels * image_size**2 + hidden, classes
    )
    module.number = lambda **sizes: 3
    monkeypatch.setitem(sys.modules, "own_arch", module)


def test_own_model_is_called_with_the_sizes(own):
    model = build(ArchConfig(target={"_target_": "own_arch.Net", "hidden": 5}), 3, 10, 4)
    assert (model.in_features, model.out_features) == (3 * 16 + 5, 10)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"_target_": "nowhere.Net"}, "nowhere.Net cannot be imported"),
        ({"_target_": "own_arch.Missing"}, "own_arch.Missing cannot be imported"),
        ({"_target_": "own_arch.Net", "depth": 3}, "depth"),
        ({"_target_": "own_arch.number"}, "must return a torch.nn.Module, got int"),
        ({"hidden": 3}, "needs a _target_"),
    ],
)
def test_own_model_that_cannot_be_used(own, target, message):
    with pytest.raises(ConfigError, match=f"arch.target.*{message}"):
        build(ArchConfig(target=target), 3, 10, 4)


def test_timms_are_called_with_what_it_calls_the_sizes(monkeypatch):
    module = types.ModuleType("timm")
    module.create_model = lambda model_name, in_chans, num_classes: nn.Conv2d(in_chans, num_classes, len(model_name))
    monkeypatch.setitem(sys.modules, "timm", module)
    model = build(ArchConfig(target={"_target_": "timm.create_model", "model_name": "abc"}), 2, 10, 4)
    assert model.weight.shape == (10, 2, 3, 3)
