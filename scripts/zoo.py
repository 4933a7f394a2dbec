"""Networks of many kinds with random weights, and the inputs that they take: torchvision's, timm's, transformers', own.

timm and transformers are used where they are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import torch
import torchvision
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...]]

_TORCHVISION = (
    *("squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v3_small", "mobilenet_v2", "regnet_y_400mf"),
    *("efficientnet_b0", "densenet121", "resnet18", "resnet50", "swin_t", "convnext_tiny", "alexnet", "vit_b_16"),
    "vgg11",
)  # as they grow
_TIMM = Path(__file__).with_name("timm.csv")
"""The smallest model of each family of timm 1.0.31 (a module of it), models for its own tests left aside."""


class Tagger(nn.Module):
    """Tokens to a tag each."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(5000, 128), nn.LSTM(128, 256, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(512, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.rnn(self.table(tokens))[0])


class UNet(nn.Module):
    """Two levels down and up again, by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 64, 3, 2, 1), nn.Conv2d(64, 128, 3, 2, 1)
        self.deep = nn.Conv2d(128, 128, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ConvTranspose2d(128, 64, 4, 2, 1)
        self.out = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.down1(x))
        deep = torch.relu(self.deep(torch.relu(self.down2(first))))
        return self.out(torch.relu(self.up1(torch.cat([first, torch.relu(self.up2(deep))], 1))))


def volume() -> nn.Module:
    """A network of convolutions along three axes."""
    block = [nn.Conv3d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(32, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(
        *block, nn.Conv3d(64, 64, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 10)
    )


def of_torchvision(name: str) -> Made:
    """A classifier of torchvision's."""
    return torchvision.models.get_model(name, weights=None), (torch.randn(1, 3, 224, 224),)


def of_timm(name: str) -> Made:
    """A classifier of timm's, for images as it likes them."""
    model = importlib.import_module("timm").create_model(name)
    return model, (torch.randn(1, *model.default_cfg["input_size"]),)


def of_transformers(name: str) -> Made:
    """A small network of the architecture of this name, for 32 tokens."""
    package, tokens, sizes = importlib.import_module("transformers"), torch.randint(1000, (1, 32)), {"vocab_size": 8000}
    if name == "bert":
        sizes |= {"num_hidden_layers": 4, "hidden_size": 384, "num_attention_heads": 6}
        return package.BertModel(package.BertConfig(**sizes)), (tokens,)
    sizes |= {"n_layer": 4, "n_embd": 384, "n_head": 6, "bos_token_id": 0, "eos_token_id": 0, "use_cache": False}
    return package.GPT2LMHeadModel(package.GPT2Config(**sizes)), (tokens,)


def networks() -> dict[str, Callable[[], Made]]:
    """Functions that build a network and give the inputs that it takes, by name, small networks first."""
    found: dict[str, Callable[[], Made]] = {
        "volume": lambda: (volume(), (torch.randn(1, 3, 8, 32, 32),)),
        "unet": lambda: (UNet(), (torch.randn(1, 3, 64, 64),)),
        "tagger": lambda: (Tagger(), (torch.randint(5000, (1, 30)),)),
        "transformer": lambda: (nn.Transformer(256, 4, 3, 3, 1024, batch_first=True), (torch.randn(1, 20, 256),) * 2),
    }
    if importlib.util.find_spec("transformers"):
        found |= {name: partial(of_transformers, name) for name in ("bert", "gpt2")}
    found |= {name: partial(of_torchvision, name) for name in _TORCHVISION}
    if importlib.util.find_spec("timm"):
        found |= {f"timm/{name}": partial(of_timm, name) for name in pandas.read_csv(_TIMM)["model"]}
    return found
