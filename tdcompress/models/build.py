"""The networks, built dense with torch's initial weights: ours, torchvision's classifiers, or a user's own.

Where a max-pooling and a ReLU follow each other, the pooling comes first: the two commute, and the ReLU then has a
quarter of the entries to work on.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..config.schema import ArchConfig
from ..config.targets import Target, call_target
from ..tensor.errors import ConfigError
from .lenet import lenet, lenet5
from .recurrent import RECURRENT, recurrent
from .resnet import RESNET, resnet
from .vgg import VGG, vgg
from .vit import vit

ARCHS: dict[str, Callable[[ArchConfig, int, int, int], nn.Module]] = {
    "lenet": lenet,
    "lenet5": lenet5,
    **dict.fromkeys(VGG, vgg),
    **dict.fromkeys(RESNET, resnet),
    "vit_small": vit,
    "torchvision": Target(f"{__package__}.torchvisions.torchvisions"),  # which takes longer to import than torch
    **dict.fromkeys(RECURRENT, recurrent),
}
"""By name: functions of the configuration, channels, classes and image size, as ``build`` takes them."""

_TAKES: dict[Callable[..., nn.Module], tuple[str, ...]] = {
    lenet: ("width", "head"),
    lenet5: ("width", "head"),
    vgg: ("width", "head", "batch_norm"),
    resnet: ("width",),
    vit: ("width",),
    recurrent: ("width", "hidden", "frames"),
    ARCHS["torchvision"]: ("model",),
}
"""What each of them reads of the configuration. Only those whose last layers are made for a feature map have a head."""


def build(config: ArchConfig, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """The dense network, from images ``(b, in_channels, image_size, image_size)`` to ``(b, classes)``.

    A user's own (``config.target``) is called with these three sizes, one of torchvision or timm with what those call
    them. Raises ``ConfigError`` for an unknown name, for a choice that this network does not have, a target that is no
    module, or when pooling leaves nothing of the input.
    """
    if config.target:
        _refuse_others(config, "arch.target", ())
        target = str(config.target.get("_target_"))
        sizes = {"in_channels": in_channels, "classes": classes, "image_size": image_size}
        if target.startswith("torchvision.models."):
            if in_channels != 3:
                raise ConfigError(f"arch.target: torchvision's models take images of 3 channels, not {in_channels}")
            sizes = {"num_classes": classes}
        elif target.startswith("timm."):
            sizes = {"in_chans": in_channels, "num_classes": classes}
        sizes = {name: size for name, size in sizes.items() if name not in config.target}
        model = call_target(config.target, "arch.target", **sizes)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"arch.target must return a torch.nn.Module, got {type(model).__name__}")
        return model
    if config.name not in ARCHS:
        raise ConfigError(f"unknown arch '{config.name}', known: {', '.join(sorted(ARCHS))}")
    make = ARCHS[config.name]
    _refuse_others(config, f"arch={config.name}", _TAKES[make])
    return make(config, in_channels, classes, image_size)


def _refuse_others(config: ArchConfig, what: str, takes: tuple[str, ...]) -> None:
    """Raise ``ConfigError`` for a choice that would change nothing."""
    for key, usual in vars(ArchConfig()).items():
        value = getattr(config, key)
        if key not in ("name", "keep", "target", *takes) and value != usual:
            raise ConfigError(f"{what} has no {key} to choose: leave arch.{key}={value} out")
