"""Networks of many kinds with random weights, and the inputs that they take: torchvision's, timm's, transformers', own.

timm and transformers are used where they are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...]]

_TORCHVISION = """
    squeezenet1_1 shufflenet_v2_x0_5 mnasnet0_5 mobilenet_v3_small mobilenet_v2 regnet_y_400mf efficientnet_b0
    densenet121 resnet18 resnet50 swin_t convnext_tiny alexnet vit_b_16 vgg11
""".split()  # as they grow

_TIMM = """
    starnet_s050 mobilevit_xxs dla46_c lcnet_035 mobilenetv2_035 ese_vovnet19b_slim_dw convnext_zepto_rms
    repghostnet_050 efficientvit_m0 ghostnet_050 cspnext_tiny iformer_t xcit_nano_12_p8_224 regnety_002
    cs3darknet_focus_s efficientvit_b0 swiftformer_xs efficientformerv2_s0 pvt_v2_b0 fasternet_t0 fastvit_t8
    lcnetv2_small inception_next_atto rexnet_100 mobileone_s1 pit_ti_224 hardcorenas_b resnet10t repvit_m1
    vit_tiny_patch16_dinov3_qkvb coat_tiny edgenext_small convit_tiny deit_tiny_patch16_224 vit_tiny_patch16_224
    gmlp_ti16_224 hgnetv2_b0 shvit_s1 vit_tiny_r_s16_p8_224 cpubone_nano efficientvim_m1 crossvit_tiny_240
    mambaout_femto maxvit_pico_rw_256 levit_128s densenet121 halonet_h1 nf_regnet_b0 dpn48b visformer_tiny
    resnest14d csatv2 resnetv2_18 legacy_seresnet18 poolformerv2_s12 cait_xxs24_224 skresnet18 gcvit_xxtiny
    tiny_vit_5m_224 efficientformer_l1 hrnet_w18_small lowformer_b0 nest_tiny vit_srelpos_small_patch16_224
    legacy_xception tnt_s_legacy_patch16_224 inception_v3 rdnet_tiny twins_svt_small mvitv2_tiny
    convmixer_1024_20_ks9_p14 res2next50 volo_d1_224 sam2_hiera_tiny xception41p sequencer2d_s hiera_tiny_224
    swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 davit_tiny focalnet_tiny_srf
    selecsls42 tresnet_m nextvit_small inception_v4 inception_resnet_v2 mobilenetv5_base pnasnet5large
    samvit_base_patch16_224 naflexvit_base_patch16_parfac_gap beit_base_patch16_224 qwen3_vit_88m
    vitamin_base_224 nasnetalarge vgg11 gemma4_vit_167m deepseek_vit_412m
""".split()
"""The smallest model of each family of timm 1.0.31 (a module of it), models for its tests left aside; as they grow."""


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
    sizes |= {"n_layer": 4, "n_embd": 384, "n_head": 6, "bos_token_id": 0, "eos_token_id": 0}
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
        found |= {f"timm/{name}": partial(of_timm, name) for name in _TIMM}
    return found
