"""The networks, built dense with torch's initial weights: LeNet, LeNet-5, VGG, LSTM, GRU, or a user's own.

Where a max-pooling and a ReLU follow each other, the pooling comes first: the two commute, and the ReLU then has a
quarter of the entries to work on.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from .config import ArchConfig, ConfigError
from .dropout import Dropout
from .layers import FeatureMapLinear
from .recurrent import GRU, LSTM, Last, Recurrent, Steps
from .targets import call_target

ARCHS: dict[str, Callable[[ArchConfig, int, int, int], nn.Module]] = {}

VGG = {  # convolutions per stage; channels 64, 128, 256, 512, 512 (Simonyan and Zisserman 2015, table 1)
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}

RECURRENT: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU}


def build(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """The dense network for square images of ``image_size`` pixels.

    Raises ``ConfigError`` for an unknown name, or when pooling leaves nothing of the input.
    """
    if config.target:
        sizes = {"in_channels": in_channels, "classes": classes, "image_size": image_size}
        if str(config.target.get("_target_")).startswith("torchvision.models."):
            if in_channels != 3:
                raise ConfigError(f"arch.target: torchvision's models take images of 3 channels, not {in_channels}")
            sizes = {"num_classes": classes}
        sizes = {name: size for name, size in sizes.items() if name not in config.target}
        model = call_target(config.target, "arch.target", **sizes)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"arch.target must return a torch.nn.Module, got {type(model).__name__}")
        return model
    if config.name not in ARCHS:
        raise ConfigError(f"unknown arch '{config.name}', known: {', '.join(sorted(ARCHS))}")
    return ARCHS[config.name](config, in_channels, classes, image_size)


def lenet(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """The reference system's LeNet: conv 32 and 64 (3x3), pool, fc 128; on 28x28 images fc1 is 9216-128."""
    side = _side("lenet", (image_size - 4) // 2, 6)
    c1, c2, hidden = (_scaled(channels, config) for channels in (32, 64, 128))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(in_channels, c1, 3),
        relu1=nn.ReLU(inplace=True),
        conv2=nn.Conv2d(c1, c2, 3),
        pool=nn.MaxPool2d(2),
        relu2=nn.ReLU(inplace=True),
        dropout1=Dropout(0.25),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers | _head(config, (c2, side, side), hidden, classes, relu="relu3", dropout=0.5))


def lenet5(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """The LeNet-5 of the tensor-ring literature (Wang et al. 2018, table 1); 429,100 weights and biases on 28x28."""
    c1, c2, hidden = (_scaled(channels, config) for channels in (20, 50, 320))
    side = _side("lenet5", (image_size // 2 - 4) // 2, 12)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(in_channels, c1, 5, padding=2),
        pool1=nn.MaxPool2d(2),
        relu1=nn.ReLU(inplace=True),
        conv2=nn.Conv2d(c1, c2, 5),
        pool2=nn.MaxPool2d(2),
        relu2=nn.ReLU(inplace=True),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers | _head(config, (c2, side, side), hidden, classes, relu="relu3"))


def vgg(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """VGG with batch norm and the reference system's head: dropout .25, fc 128, dropout .25, fc ``classes``."""
    features: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for stage, (count, width) in enumerate(zip(VGG[config.name], (64, 128, 256, 512, 512), strict=True), 1):
        for position in range(1, count + 1):
            name, wide = f"{stage}_{position}", _scaled(width, config)
            features[f"conv{name}"] = nn.Conv2d(channels, wide, 3, padding=1, bias=not config.batch_norm)
            if config.batch_norm:
                features[f"norm{name}"] = nn.BatchNorm2d(wide)
            if position == count:
                features[f"pool{stage}"] = nn.MaxPool2d(2)
            features[f"relu{name}"] = nn.ReLU(inplace=True)
            channels = wide
    side = _side(config.name, image_size // 32, 32)
    head = _head(config, (channels, side, side), _scaled(128, config), classes, dropout=0.25)
    classifier = nn.Sequential(OrderedDict(dropout1=Dropout(0.25)) | head)
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), flatten=nn.Flatten(), classifier=classifier))


def recurrent(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """LSTM or GRU over the rows of an image, or over frames stacked as channels; its last state is classified."""
    if config.head != "fc":
        raise ConfigError(f"arch.head={config.head} needs a feature map, arch={config.name} has none: arch.head=fc")
    steps = config.frames or image_size
    if config.frames and in_channels % config.frames:
        raise ConfigError(
            f"arch.frames={config.frames} does not divide the {in_channels} channels of the data: use the data set's "
            "dataset.frames, or arch.frames=null for rows of pixels as time steps"
        )
    hidden = _scaled(config.hidden, config)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        steps=Steps(config.frames),
        rnn=RECURRENT[config.name](in_channels * image_size**2 // steps, hidden),
        last=Last(),
        fc=nn.Linear(hidden, classes),
    )
    return nn.Sequential(layers)


ARCHS |= {
    "lenet": lenet,
    "lenet5": lenet5,
    **dict.fromkeys(VGG, vgg),
    **dict.fromkeys(RECURRENT, recurrent),
}


def _scaled(channels: int, config: ArchConfig) -> int:
    return max(1, round(channels * config.width))


def _head(
    config: ArchConfig,
    feature_map: tuple[int, int, int],
    hidden: int,
    classes: int,
    relu: str = "relu",
    dropout: float = 0.0,
) -> OrderedDict[str, nn.Module]:
    """What follows the flattened feature map: two linear layers, the ReLU between them named ``relu``, or one."""
    if config.head == "trl":
        return OrderedDict(trl=FeatureMapLinear(feature_map, classes))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["fc1"] = nn.Linear(math.prod(feature_map), hidden)
    layers[relu] = nn.ReLU(inplace=True)
    if dropout:
        layers["dropout2"] = Dropout(dropout)
    layers["fc2"] = nn.Linear(hidden, classes)
    return layers


def _side(arch: str, side: int, smallest: int) -> int:
    """The side of the feature map, if there is one. ``smallest``: of the images that leave one pixel."""
    if side < 1:
        raise ConfigError(
            f"arch={arch} leaves nothing of images this small: they need at least {smallest}x{smallest} pixels "
            f"(dataset.image_size={smallest})"
        )
    return side
