"""Training images that are held out, to choose by while training; test images are for reporting only."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensor.errors import ConfigError


def held_out(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Which of the images with these ``labels`` ``(n,)`` are held out: a mask ``(n,)``, a function of ``seed``.

    Of every class ``fraction`` of its images, rounded, and at least one. Raises ``ConfigError`` for a class with a
    single image, which cannot be learned and held out at once.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes, counts = labels.unique(return_counts=True)
    if (counts < 2).any():
        alone = classes[counts < 2].tolist()
        told = ", ".join(map(str, alone[:5])) + (", .." if len(alone) > 5 else "")
        raise ConfigError(
            f"dataset.validation={fraction:g} needs at least two training images of each class, and of class {told} "
            "(counted from 0) there is one: add some, raise dataset.limit, or use dataset.validation=0"
        )
    by_class = order[labels[order].argsort(stable=True)].split(counts.tolist())
    held = torch.zeros(len(labels), dtype=torch.bool)
    for members in by_class:
        held[members[: max(1, round(fraction * len(members)))]] = True
    return held
