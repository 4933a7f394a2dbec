"""The configuration's schema: types, defaults and checked ranges, as plain dataclasses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from ..tensor.errors import ConfigError
from ..tensor.formats import DEFAULT
from ..tensor.layout import KERNELS, LAYOUTS
from ..tensor.rank import Budget, LayerRank, parse, reached
from .keys import unknown

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
INTERVALS = ("epoch", "step")
DECAYS = ("factors", "scaled", "frobenius")
HEADS = ("fc", "trl")
CUTS = ("gradual", "at_once")
CORE_LRS = ("same", "balanced")
BROKEN = ("fail", "skip")
AUTO = "auto"


@dataclass
class DatasetConfig:
    """What is learned. ``name`` is a key of ``data.table.DATASETS``; ``target`` names a user's own loader."""

    name: str = "digits"  # of the data set, as dataset= has it
    root: Optional[str] = None  # folder of the files; None: ./data (image_folder and video_folder require one)
    download: bool = True  # what torchvision has and is not there
    image_size: Optional[int] = None  # pixels, square; None: as stored (digits: 28)
    padding: int = 0  # random crop after zero padding by this many pixels, 0: none
    flip: bool = False  # random horizontal flip
    frames: Optional[int] = None  # of each clip, evenly spaced, stacked as channels (video_folder)
    limit: Optional[int] = None  # use only the first so many training images (after a fixed shuffle)
    validation: float = 0.0  # this share of them, of every class alike, is held out to choose by while training
    validation_seed: Optional[int] = None  # decides which these are; None: the run's seed
    stream: Optional[bool] = None  # read batch by batch; None: only what does not fit into the device's free memory
    workers: Optional[int] = None  # processes that read when streaming; None: one a thread of torch, 8 at most
    label: Optional[str] = None  # what figures and tables call it; None: its name, or that of its folder
    broken: str = "fail"  # of a folder's files that cannot be read: name the first and end, or "skip" all and name them
    # {_target_: package.function, ...}: returns tdcompress.data.sources.Arrays
    target: dict[str, Any] = field(default_factory=dict)


@dataclass
class ArchConfig:
    """The network, built dense. ``name`` is a key of ``models.build.ARCHS``; ``target`` a user's own model."""

    name: str = "lenet"  # of the network, as arch= has it
    width: float = 1.0  # multiplies every hidden channel count
    batch_norm: bool = True  # VGG only
    head: str = "fc"  # behind the convolutions: two linear layers, or "trl", one tensor regression of the feature map
    hidden: int = 256  # units of lstm and gru, times width
    frames: Optional[int] = None  # lstm and gru: a time step each, stacked as channels; None: a row of pixels is a step
    model: str = ""  # of torchvision: the name of one of its classifiers, such as resnet50
    keep: Optional[list[str]] = None  # layer-name patterns that stay dense; None: first convolution, last linear
    # {_target_: package.Class, ...}: called with in_channels, classes, image_size
    target: dict[str, Any] = field(default_factory=dict)


@dataclass
class MethodConfig:
    """How weights are held. ``format`` is a key of ``tensor.formats.FORMATS``."""

    format: str = DEFAULT  # of all layers that hold cores, as method= has it
    conv: Optional[str] = None  # another format for convolutions
    linear: Optional[str] = None  # another format for linear layers
    layout: Optional[str] = None  # channels i|kh kw|o, matrix i kh kw|o, split i1 i2..|kh kw|o1.., paired i1 o1|i2 o2..
    kernel: Optional[str] = None  # kh kw: one site, two sites ("separate"), or left on the format's core ("open")
    factors: Optional[int] = None  # how many a channel count is split into (split, paired); None: the format's own
    in_modes: Optional[list[int]] = None  # or the factors of the input channels themselves
    out_modes: Optional[list[int]] = None  # and of the output channels
    # orthogonal, variance (Gaussian), spectral (the dense weight's fit, at its norm), fit, or rough (a fit in fewer
    # sweeps); None: the format's own
    init: Optional[str] = None
    fit: str = "tdcompress"  # whose algorithms fit a weight: ours, or "tensorly"'s where it has the format
    decay: str = "factors"  # of each core; "scaled": times parameters / dense ones; "frobenius": of the weight itself
    # the contraction order: by the cost model, by "measure" on the first batch, "contract" (never the whole weight),
    # "chain" or "dense"
    plan: str = "model"
    rank_multiple: int = 8  # what larger ranks of a budget are multiples of, as far as the budget can be met so
    checkpoint: bool = False  # keep only a layer's input for backward, and compute the rest again
    allow_larger: bool = False  # factorise layers even where the cores hold no fewer entries than the dense weight
    # per-layer overrides: {name pattern: {rank: 4, layout: split}}
    layers: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule as ``_target_`` dictionaries; the learning rate is ``TrainConfig.lr``."""

    # {_target_: package.Class, ...}; another _target_ keeps what it takes of the rest
    optimizer: dict[str, Any] = field(default_factory=dict)
    # likewise, or null; the words steps, epochs and lr stand for those of the run
    scheduler: Optional[dict[str, Any]] = None
    interval: str = "epoch"  # the scheduler steps once an epoch, or once a "step"
    clip: Optional[float] = None  # the gradient's norm never exceeds this; products of cores can make it very large
    # each core's learning rate: the network's, or "balanced", the multiple of it at which the cores of a layer change
    # its output equally, and together as its dense weight would
    core_lr: str = "same"


@dataclass
class LauncherConfig:
    """How a sweep's runs are carried out. ``name`` is a key of ``train.launch.launchers.LAUNCHERS``."""

    name: str = "basic"  # as launcher= has it
    jobs: int = 1  # runs at once
    partition: Optional[str] = None  # of the cluster, for each run
    account: Optional[str] = None  # that each run is charged to
    cpus: int = 1  # of each run on a cluster
    gpus: int = 0  # of each run on a cluster
    minutes: int = 1440  # after which a cluster ends a run
    requeues: int = 10  # how often a run that reached the time limit is queued again


@dataclass
class TrainConfig:
    """One training run."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    arch: ArchConfig = field(default_factory=ArchConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    # bond dimension, one for each bond, "reference", a budget of the network: "10x", "params:120000", "macs:0.2", or
    # one that the ranks are cut down to while training: "adaptive:10x", "adaptive:macs:0.2"
    rank: Any = 8
    init_from: Optional[str] = None  # weights to start from: a run's directory or a file; dense ones are decomposed
    # epochs in which the network is dense, before its weights are decomposed: a number, or "auto": with a budget until
    # its ranks have settled, else 0
    full_rank_epochs: Any = AUTO
    cut: str = "gradual"  # from full rank to a budget: over half of the epochs that remain; or "at_once"
    lr: float = 0.05  # the learning rate at the start
    epochs: int = 10  # passes over the training images
    batch_size: int = 100  # images of a step
    seed: int = 0  # of the initial cores, the order of images and what is random while training
    device: str = "auto"  # cpu, cuda; auto: CUDA where there is one
    precision: str = "auto"  # fp32, bf16; auto: bf16 where the device computes it natively
    compile: bool = False  # torch.compile the network; other kernels and other dropout masks, so another run
    cuda_graphs: bool = True  # record a step's passes once and replay them: the same kernels, launched as one
    profile: bool = False  # torch's profiler over a few steps of the first epoch: a table in the log, trace.json
    tensorboard: bool = False  # event files in the run's folder, beside metrics.csv
    results_dir: str = "results"  # the folder above runs/


# A single layer has no others of its own.
_WHOLE = ("layers", "conv", "linear", "decay", "rank_multiple")
_OF_A_LAYER = ["rank", *(f.name for f in fields(MethodConfig) if f.name not in _WHOLE)]


def layer_ranks(method: MethodConfig) -> dict[str, LayerRank]:
    """The ranks that layers have of their own, by their pattern in ``method.layers``.

    Raises ``ConfigError`` for what is none, for a budget, and for a key that a layer does not have.
    """
    found = {}
    for pattern, changes in method.layers.items():
        if not isinstance(changes, dict):
            raise ConfigError(f"method.layers.{pattern}={changes} is not like {{rank: 4}}")
        for key in changes:
            if key not in _OF_A_LAYER:
                raise ConfigError(unknown(str(key), _OF_A_LAYER, f"method.layers.{pattern}"))
        if "rank" in changes:
            rank = parse(changes["rank"])
            if isinstance(rank, Budget):
                raise ConfigError(
                    f"method.layers.{pattern}: rank={rank} is a budget of the whole network, a layer's own is one "
                    "of its bonds: 8, [4,8], reference, vbmf or energy:0.9"
                )
            found[pattern] = rank
    return found


def validate(config: TrainConfig) -> TrainConfig:
    """The configuration with its rank parsed, a ``Rank``. Raises ``ConfigError`` for the first value out of range."""
    asked = config.rank = parse(config.rank)
    for rank in (asked, *layer_ranks(config.method).values()):
        if config.init_from is None and rank.needs_weights and config.full_rank_epochs in (0, AUTO):
            raise ConfigError(
                f"rank={rank} follows from trained weights: say which, init_from=DIRECTORY or FILE, or train them, "
                "full_rank_epochs=NUMBER"
            )
    for key, value in (
        ("epochs", config.epochs),
        ("batch_size", config.batch_size),
        ("method.factors", config.method.factors),
        ("arch.hidden", config.arch.hidden),
        ("arch.frames", config.arch.frames),
        ("launcher.jobs", config.launcher.jobs),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{key}={value} must be at least 1")
    for key, number in (("lr", config.lr), ("arch.width", config.arch.width), ("optim.clip", config.optim.clip)):
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise ConfigError(f"{key}={number:g} must be greater than 0")
    if "lr" in config.optim.optimizer:
        raise ConfigError("optim.optimizer.lr: the learning rate is lr=.., which tables and schedules go by")
    if isinstance(asked, Budget) and asked.adaptive:
        if config.epochs < 2:
            raise ConfigError(f"rank={asked} cuts after the first half of the epochs: epochs must be at least 2")
        if config.method.decay == "scaled":
            raise ConfigError(f"rank={asked} changes the sizes that method.decay=scaled goes by; use another decay")
        if config.cut == "at_once":
            raise ConfigError(f"rank={asked} is reached by cuts while training, not at_once: rank={reached(asked)}")
    _check_start(config)
    if config.optim.core_lr != "same" and config.method.decay == "scaled":
        raise ConfigError("optim.core_lr=balanced gives each core a decay of its own, method.decay=scaled as well")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed={config.seed} must lie between 0 and {2**32 - 1}")
    for key, name, known in (
        ("device", config.device, DEVICES),
        ("precision", config.precision, PRECISIONS),
        ("arch.head", config.arch.head, HEADS),
        ("method.layout", config.method.layout, LAYOUTS),
        ("method.kernel", config.method.kernel, KERNELS),
        ("method.decay", config.method.decay, DECAYS),
        ("optim.interval", config.optim.interval, INTERVALS),
        ("optim.core_lr", config.optim.core_lr, CORE_LRS),
        ("cut", config.cut, CUTS),
        ("dataset.broken", config.dataset.broken, BROKEN),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"unknown {key} '{name}', known: {', '.join(known)}")
    return config


def _check_start(config: TrainConfig) -> None:
    epochs, adaptive = config.full_rank_epochs, getattr(config.rank, "adaptive", False)
    if epochs == AUTO:
        return
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ConfigError(f"full_rank_epochs={epochs} must be a whole number of epochs, 0 for none, or auto")
    if epochs >= config.epochs:
        raise ConfigError(f"full_rank_epochs={epochs} must be less than epochs={config.epochs}")
    if epochs and adaptive and epochs > config.epochs - 2:
        raise ConfigError(
            f"rank={config.rank} cuts after the first half of the epochs that remain: full_rank_epochs={epochs} "
            f"must leave at least 2 of {config.epochs}"
        )
