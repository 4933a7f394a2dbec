"""The configuration's schema: types, defaults and checked ranges. Nothing below this file sees OmegaConf."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional

LAYOUTS = ("channels", "matrix", "split", "paired")
KERNELS = ("merged", "separate", "open")
DEVICES = ("auto", "cpu", "cuda")
INTERVALS = ("epoch", "step")


class ConfigError(ValueError):
    """A value the user gave cannot be used; the message says what is wrong and what would be right."""


@dataclass
class DatasetConfig:
    """What is learned. ``name`` is a key of ``tdcompress.sources.DATASETS``; ``_target_`` names a user's own loader."""

    name: str = "digits"
    root: Optional[str] = None  # folder of the files; None: ./data (image_folder requires one)
    image_size: Optional[int] = None  # pixels, square; None: as stored (digits: 28)
    padding: int = 0  # random crop after zero padding by this many pixels, 0: none
    flip: bool = False  # random horizontal flip
    limit: Optional[int] = None  # use only the first so many training images (after a fixed shuffle)
    target: Optional[dict[str, Any]] = None  # {_target_: package.function, ...}: returns tdcompress.sources.Arrays


@dataclass
class ArchConfig:
    """The network, built dense. ``name`` is a key of ``tdcompress.archs.ARCHS``; ``target`` a user's own model."""

    name: str = "lenet"
    width: float = 1.0  # multiplies every hidden channel count
    batch_norm: bool = True  # VGG only
    keep: Optional[list[str]] = None  # layer-name patterns that stay dense; None: first convolution, last linear
    target: Optional[dict[str, Any]] = (
        None  # {_target_: package.Class, ...}: called with in_channels, classes, image_size
    )


@dataclass
class MethodConfig:
    """How weights are held. ``format`` is a key of ``tdcompress.formats.FORMATS``."""

    format: str = "tt"
    conv: Optional[str] = None  # another format for convolutions
    linear: Optional[str] = None  # another format for linear layers
    layout: Optional[str] = None  # channels i|kh kw|o, matrix i kh kw|o, split i1 i2..|kh kw|o1.., paired i1 o1|i2 o2..
    kernel: Optional[str] = None  # kh kw: one site, two sites ("separate"), or left on the format's core ("open")
    factors: int = 3  # how many factors a channel count is split into (split, paired)
    in_modes: Optional[list[int]] = None  # or the factors of the input channels themselves
    out_modes: Optional[list[int]] = None
    init: str = "orthogonal"  # or "variance": Gaussian cores; both start with the variance of the dense twin
    plan: str = "model"  # the contraction order: by the cost model, by "measure" on the first batch, "chain" or "dense"
    checkpoint: bool = False  # keep only a layer's input for backward, and compute the rest again
    allow_larger: bool = False  # factorise layers even where the cores hold no fewer entries than the dense weight
    layers: dict[str, Any] = field(
        default_factory=dict
    )  # per-layer overrides: {name pattern: {rank: 4, layout: split}}


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule as ``_target_`` dictionaries; the learning rate is ``TrainConfig.lr``."""

    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: Optional[dict[str, Any]] = None
    interval: str = "epoch"  # the scheduler steps once an epoch, or once a "step"
    clip: Optional[float] = None  # the gradient's norm never exceeds this; products of cores can make it very large


@dataclass
class LauncherConfig:
    """How a sweep's runs are carried out. ``name`` is a key of ``tdcompress.launcher.LAUNCHERS``."""

    name: str = "basic"
    jobs: int = 1  # runs at once


@dataclass
class TrainConfig:
    """One training run."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    arch: ArchConfig = field(default_factory=ArchConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    rank: Any = 8  # bond dimension, or "reference"
    lr: float = 0.05
    epochs: int = 10
    batch_size: int = 100
    seed: int = 0
    device: str = "auto"
    results_dir: str = "results"


def parse_rank(rank: Any) -> int | str:
    """A rank expression: a bond dimension of at least one, or "reference". Raises ``ConfigError`` for anything else."""
    text = str(rank).strip()
    if text == "reference":
        return text
    if not text.lstrip("+-").isdecimal():
        raise ConfigError(f"rank={text} is not a whole number; use rank=8, or rank=reference")
    if int(text) < 1:
        raise ConfigError(f"rank={text} must be at least 1")
    return int(text)


def validate(config: TrainConfig) -> TrainConfig:
    """The configuration with its rank parsed. Raises ``ConfigError`` for the first value out of range."""
    config.rank = parse_rank(config.rank)
    for key, value in (
        ("epochs", config.epochs),
        ("batch_size", config.batch_size),
        ("factors", config.method.factors),
        ("launcher.jobs", config.launcher.jobs),
    ):
        if value < 1:
            raise ConfigError(f"{key}={value} must be at least 1")
    for key, number in (("lr", config.lr), ("arch.width", config.arch.width), ("optim.clip", config.optim.clip)):
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise ConfigError(f"{key}={number:g} must be greater than 0")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed={config.seed} must lie between 0 and {2**32 - 1}")
    for key, name, known in (
        ("device", config.device, DEVICES),
        ("method.layout", config.method.layout, LAYOUTS),
        ("method.kernel", config.method.kernel, KERNELS),
        ("optim.interval", config.optim.interval, INTERVALS),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"unknown {key} '{name}', known: {', '.join(known)}")
    return config
