"""Data sets that do not fit the device: read by worker processes, and copied while the device computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..tensor.errors import ConfigError
from .batches import Batches
from .image_folder import FolderImages


class StreamedDataset(Batches):
    """A split whose ``images``, a tensor of the CPU or files, are fetched for each batch by ``workers`` processes."""

    def __init__(self, images: Tensor | FolderImages, *args: Any, workers: int, **options: Any) -> None:
        super().__init__(images, *args, **options)
        self.images, self.workers = images, workers

    def stored(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        fetched = read(self.images, batches, self.workers, self.device.type == "cuda")
        for images in _copied(fetched, self.device):
            yield self._padded(images), torch.arange(len(images), device=self.device)


def read(
    images: Tensor | FolderImages, positions: Sequence[Tensor], workers: int, pinned: bool = False
) -> Iterator[Tensor]:
    """For each of ``positions``, a tensor ``(b,)``, the images there: uint8 ``(b, height, width, channels)``, in order.

    ``workers`` processes read ahead; with 0 this one reads. ``pinned``: into page-locked memory, from which a CUDA
    device copies while it computes. Raises ``ConfigError`` for a file that is no image.
    """
    loader = DataLoader(
        _Answers(images),
        batch_size=None,  # a position here is a whole batch
        sampler=[batch.tolist() for batch in positions],
        num_workers=workers,
        pin_memory=pinned,
        generator=torch.Generator(),  # it would draw from the global one
    )
    for answer in loader:
        if isinstance(answer, ConfigError):
            raise answer
        yield answer


class _Answers(Dataset[Tensor | ConfigError]):
    """The images at positions, or the ``ConfigError`` that reading them raised, returned as a value.

    Raised in a worker process, it would reach this one with a whole traceback as its message.
    """

    def __init__(self, images: Tensor | FolderImages) -> None:
        self.images = images

    def __getitem__(self, positions: list[int]) -> Tensor | ConfigError:
        try:
            return self.images[positions]
        except ConfigError as error:
            return error


def _copied(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Each batch on the device; on CUDA its copy has begun before the batch ahead of it is computed with."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    ahead: tuple[Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            behind = batch.to(device, non_blocking=True), copying.record_event()
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = behind
    if ahead is not None:
        yield _arrived(*ahead)


def _arrived(batch: Tensor, copied: torch.cuda.Event) -> Tensor:
    """``batch``, for use on the current stream, which waits for the copy while the host does not."""
    stream = torch.cuda.current_stream(batch.device)
    stream.wait_event(copied)
    batch.record_stream(stream)  # its memory belongs to the copying stream, which must not reuse it too early
    return batch
