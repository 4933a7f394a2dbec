"""What people are told of a run's choices: names as they are written, settings in words, no paths and no hashes."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import PurePosixPath

from ..identity import BLANK

_SPELLED = {
    "cifar": "CIFAR", "digits": "digits", "efficientnet": "EfficientNet", "gru": "GRU", "lenet": "LeNet",
    "lstm": "LSTM", "mnist": "MNIST", "mobilenet": "MobileNet", "resnet": "ResNet", "resnext": "ResNeXt",
    "vgg": "VGG", "vit": "ViT",
}  # fmt: skip
_FOLDERS = {"image_folder": "images", "video_folder": "clips"}
_ROOT = "dataset.root"
_NAMED = (_ROOT, "dataset.target._target_", "arch.target._target_")  # said by the names
_USUAL = ("dataset.broken=fail",)  # a default of folders alone, which counts as a choice where others are looked at
_PHRASES = {
    "arch.head": "{} head",
    "arch.keep": "dense layers {}",
    "arch.width": "width {}",
    "batch_size": "batch size {}",
    "dataset.flip=true": "flips",
    "dataset.image_size": "{0} by {0} pixels",
    "dataset.limit": "{} training images",
    "dataset.padding": "shifts by {} pixels",
    "dataset.validation": "{} held out",
    "full_rank_epochs=0": "from scratch",
    "full_rank_epochs": "{} full-rank epochs",
    "init_from": "from the weights of {}",
    "optim.clip": "gradients clipped at {}",
    "optim.core_lr": "{} rates of cores",
    "optim.interval": "schedule by {}",
    "optim.optimizer._target_": "{}",
    "optim.optimizer.nesterov=true": "Nesterov",
    "optim.scheduler._target_": "{}",
    "precision": "{}",
}  # of a key, or of a key with its value
_FAMILY = re.compile(r"(?<=[a-zA-Z]{2})(?=\d)")  # between a family's name and its number
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")


def spelled(name: str) -> str:
    """A data set or a network as it is written: ``fashion_mnist`` is Fashion-MNIST, ``vgg16`` VGG-16.

    A dotted name, of a user's own function, is its last part.
    """
    parts = [part for word in name.split(".")[-1].split("_") for part in _FAMILY.split(word)]
    return "-".join(_SPELLED.get(part, part if any(map(str.isdigit, part)) else part.capitalize()) for part in parts)


def dataset(name: str, label: str, setting: str) -> str:
    """A data set as people call it: its label, if it has one; a folder without one by the folder's name."""
    if label:
        return label
    if name not in _FOLDERS:
        return spelled(name)
    return PurePosixPath(root(setting)).name or _FOLDERS[name]


def root(setting: str) -> str:
    """The folder of the data, as it was chosen; empty where it was not."""
    words = setting.split()
    return next((word.partition("=")[2].replace(BLANK, " ") for word in words if word.startswith(f"{_ROOT}=")), "")


def phrases(words: str) -> dict[str, str]:
    """The words of ``identity.choices``, each with what it says to people; none for defaults and what names say.

    Of a group the names of what is used come before its values.
    """
    told = {}
    for _, group in groupby(words.split(), key=lambda word: re.split("[.=]", word)[0]):
        for word in sorted(group, key=lambda word: "._target_=" not in word):
            key, _, value = word.partition("=")
            if key not in _NAMED and word not in _USUAL:
                told[word] = _phrase(key, value)
    return told


def said(words: str) -> str:
    """All of them, between commas."""
    return ", ".join(phrases(words).values())


def rank(text: str) -> str:
    """A rank, as a table has it: ``macs:0.2`` is 20 % of the MACs."""
    kind, _, value = text.rpartition(":")
    if kind == "adaptive" or kind.startswith("adaptive:"):
        return f"adaptive {rank(text.partition(':')[2])}"
    if kind == "macs" and _NUMBER.fullmatch(value):
        return f"{100 * float(value):g} % of the MACs"
    if kind == "params":
        return f"{_value(value)} parameters"
    return f"rank {text}" if text.isdigit() else text


def slug(text: str) -> str:
    """``text`` as a part of a file's name."""
    kept = re.sub(r"(?<=\d),(?=\d{3})", "", text).replace("%", "percent")
    return re.sub(r"[^A-Za-z0-9.]+", "-", kept).strip("-.").lower()


def _phrase(key: str, value: str) -> str:
    phrase = _PHRASES.get(f"{key}={value}", _PHRASES.get(key))
    if phrase is None:
        phrase = "with {0}" if value == "true" else "without {0}" if value == "false" else "{0} {1}"
        return phrase.format(key.split(".")[-1].strip("_").replace("_", " "), _value(value))
    if key == "init_from":
        place = PurePosixPath(value.replace(BLANK, " "))  # of a run its folder, whatever the seed
        return phrase.format(place.parent.name if re.fullmatch(r"seed(\d+|\$\{seed\})", place.name) else place.name)
    if key == "dataset.validation":
        return phrase.format(f"{100 * float(value):g} %")
    return phrase.format(_value(value))


def _value(text: str) -> str:
    text = text.replace(BLANK, " ")
    if _NUMBER.fullmatch(text):
        number = float(text)
        return f"{number:,.0f}" if number == int(number) and abs(number) >= 1 else f"{number:g}"
    if "/" in text:
        return PurePosixPath(text).name
    if re.fullmatch(r"[A-Za-z_][\w.]*\.[A-Za-z_]\w*", text):  # a dotted name, as of an optimizer
        return text.rsplit(".", 1)[-1]
    return re.sub(r'[\[\]"]', "", text).replace(",", ", ")
