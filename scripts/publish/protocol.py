"""The protocol: every command behind the numbers in results/published, the most telling first."""

from __future__ import annotations

from dataclasses import dataclass

_VGG = ("train", "experiment=cifar10_comparison", "arch.width=0.25", "epochs=30")
_SCRATCH = ("train", "experiment=scratch", "arch.width=0.25", "epochs=30")
_CHANNELS = "method=cp,tucker,tt,tr,ht"  # the formats that have this layout, and pairs
_AND_DENSE = "method=dense,cp,tucker,tt,tr,ht"
_CUT = (
    *("train", "experiment=scratch", "arch.width=0.25", "epochs=15", _AND_DENSE),
    *("method.layout=channels", "rank=adaptive:10x", "optim=muon"),
)
_EQUAL = ("train", "experiment=scratch", "arch.width=0.25", "epochs=15", "rank=macs:0.4", "optim=muon")
_HEAD = ("train", "experiment=trl", "seed=0")
_STEP = ("bench", "step", "batch_size=100", "repeats=7")
_INFER = ("bench", "infer", "repeats=21", "precision=fp32", "batch_size=1,64")
_EXPORT = ("bench", "export", "threads=1", "repeats=21")
_MADE = ("rank=10x", _CHANNELS, "layout=channels")  # networks that were not trained, at the ranks of one scale


@dataclass(frozen=True)
class Part:
    """A command of the protocol: the words of ``tdc``, for a sweep of trainings or a table of times.

    ``minutes``: of one of its trainings on one core of a Xeon with AMX, dense epochs that several share left out; of a
    table on two cores. ``images``: the data set that it trains on. ``alone``: its trainings are timed, so there is one
    at a time, with all the cores. ``runs``: the part whose trained networks, of its first seed, a table is of.
    """

    name: str
    what: str
    words: tuple[str, ...]
    minutes: float
    images: str = "cifar10"
    alone: bool = False
    runs: str | None = None

    @property
    def is_table(self) -> bool:
        """Whether it makes a table of times."""
        return self.words[0] == "bench"


PROTOCOL = (
    Part("vgg16", "VGG-16 at a tenth, a start at full rank", _VGG, 10),
    Part("vgg16_scratch", "the same from scratch, in pairs of modes (btt: blocks)", _SCRATCH, 22),
    Part("vgg16_channels", "the same from scratch, by channels", (*_SCRATCH, _CHANNELS, "method.layout=channels"), 10),
    Part("scratch_adaptive", "by channels, ranks cut while training, Muon", _CUT, 6),
    Part("scratch_macs", "at equal MACs, Muon", _EQUAL, 6),
    Part("vgg16_narrow", "a dense network as small", (*_VGG, "method=dense", "arch.width=0.079"), 6),
    Part("step_bf16", "a training step of the first", _STEP, 4, runs="vgg16"),
    Part("infer", "a forward pass of the first", _INFER, 2, runs="vgg16"),
    Part("export", "files of the first, and the time of a pass in onnxruntime", _EXPORT, 5, runs="vgg16"),
    Part("vgg16_5x", "a fifth", (*_VGG, "rank=5x"), 13),
    Part("vgg16_ranks", "a twentieth, and 0.135 of the MACs", (*_VGG, "rank=20x,macs:0.135", "seed=0"), 10),
    Part("lenet5", "LeNet-5 on shifted images", ("train", "experiment=lenet5_shifts"), 6, "mnist"),
    Part(
        "lenet5_ring",
        "LeNet-5 as rings at 6.5x",
        ("train", "experiment=lenet5_shifts", "method=dense,tr", "rank=6.5x"),
        6,
        "mnist",
    ),
    Part(
        "lenet",
        "LeNet on shifted images",
        ("train", "experiment=lenet5_shifts", "arch=lenet"),
        8,
        "mnist",
    ),
    Part(
        "resnet20",
        "ResNet-20 at a third and a fifth",
        ("train", "experiment=cifar10_comparison", _AND_DENSE, "arch=resnet20", "epochs=15", "rank=3x,5x", "seed=0"),
        15,
    ),
    Part(
        "resnet20_macs",
        "ResNet-20 at 0.278 of the MACs",
        (*_VGG[:2], "method=dense,tucker", "arch=resnet20", "epochs=15", "rank=macs:0.278", "seed=0"),
        15,
    ),
    Part(
        "resnet56",
        "ResNet-56 at a third",
        (*_VGG[:2], "method=dense,tucker", "arch=resnet56", "epochs=15", "rank=3x", "seed=0"),
        45,
    ),
    Part(
        "resnet18",
        "ResNet-18, a quarter as wide, at a half",
        (*_VGG[:3], "method=dense,tucker", "arch=resnet18", "epochs=15", "rank=2x", "seed=0"),
        20,
    ),
    Part("lstm", "an LSTM that reads MNIST row by row", ("train", "experiment=sequence"), 4, "mnist"),
    Part("trl", "LeNet's head as tensor regression", (*_HEAD, "arch.head=trl"), 4, "mnist"),
    Part("trl_linear", "the same head as two linear layers", (*_HEAD, "arch.head=fc"), 4, "mnist"),
    Part(
        "vgg16_half", "VGG-16 of half the width", (*_VGG[:2], _AND_DENSE, "arch.width=0.5", "epochs=30", "seed=0"), 40
    ),
    Part(
        "reference_mnist",
        "the reference system's figure of MNIST",
        ("train", "experiment=reference/mnist", "epochs=10"),
        3,
        "mnist",
    ),
    Part(
        "reference_cifar10",
        "that of CIFAR-10, a quarter as wide",
        ("train", "experiment=reference/cifar10", "arch.width=0.25", "epochs=30"),
        15,
    ),
    Part(
        "reference_mnist_time",
        "its seconds per epoch on MNIST",
        ("train", "experiment=reference/mnist_time"),
        2,
        "mnist",
        True,
    ),
    Part(
        "reference_cifar10_time",
        "those on CIFAR-10, a quarter as wide",
        ("train", "experiment=reference/cifar10_time", "arch.width=0.25"),
        2,
        "cifar10",
        True,
    ),
    Part(
        "vgg16_full_time",
        "the seconds of a training at full width, its schedule in small",
        ("train", "experiment=cifar10_comparison", _AND_DENSE, "epochs=9", "dataset.limit=5000", "seed=0"),
        5,
        "cifar10",
        True,
    ),
    Part("step_bf16_cut", "a step of the last, at the ranks it ended with", _STEP, 4, runs="vgg16_full_time"),
    Part("step_fp32_cut", "the same in float32", (*_STEP, "precision=fp32"), 8, runs="vgg16_full_time"),
    Part("step_bf16_full", "a step of VGG-16 at full width", (*_STEP, *_MADE), 10),
    Part("step_bf16_pairs", "the same from scratch", (*_STEP, "rank=10x", _CHANNELS, "layout=paired"), 12),
    Part("step_bf16_blocks", "the same of blocks", (*_STEP, "rank=10x", "method=btt"), 2),
    Part("infer_full", "a forward pass of VGG-16 at full width", (*_INFER, *_MADE), 4),
    Part("export_lenet", "files of LeNet", (*_EXPORT, "arch=lenet", "dataset=mnist", "rank=10.5x"), 3),
    Part("fit", "fits of single weights beside tensorly's", ("bench", "fit"), 3),
    Part("loop", "an epoch beside an ordinary loop", ("bench", "loop", "dataset=mnist"), 8),
)
