"""A data set as batches that are shuffled, augmented and normalised on the device, wherever the pixels are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device.processes import World
from .image_folder import FolderImages


class Batches(ABC):
    """A split of ``images``, uint8 ``(n, size, size, channels)``, with ``labels`` ``(n,)``, served on ``device``.

    ``mean`` and ``std``: per channel, in units of pixel values 0..255; ``normalisation`` has both. ``padding`` and
    ``flip`` switch on random crops after zero padding and random horizontal flips. A subclass says where the pixels
    are.
    """

    def __init__(
        self,
        images: Tensor | FolderImages,
        labels: Tensor,
        device: torch.device,
        mean: Tensor,
        std: Tensor,
        padding: int = 0,
        flip: bool = False,
    ) -> None:
        self.image_size, self.in_channels = images.shape[1], images.shape[3]
        self.padding, self.flip, self.device = padding, flip, device
        self.labels = labels.to(device)
        self.normalisation = {"mean": mean.tolist(), "std": std.tolist()}
        # One value per byte of a line of pixels: a loop over whole lines vectorises, one over three channels does not.
        self.scale = (1 / std).repeat(self.image_size).to(device)
        self.shift = (-mean / std).repeat(self.image_size).to(device)

    @abstractmethod
    def stored(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch, given as positions ``(b,)`` on the CPU: where its images are found on the device.

        Two tensors: padded uint8 images ``(m, height, width, channels)``, and positions ``(b,)`` among these ``m``.
        """

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> int:
        """Batches in an epoch, the last one perhaps smaller."""
        return -(-len(self) // batch_size)

    def epoch(
        self, batch_size: int, seed: int, epoch: int, shuffle: bool, start: int = 0, world: World | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of float32 images ``(b, c, y, x)``, channels last, and labels, from batch ``start`` on.

        Order, crops and flips are a function of ``(seed, epoch)`` alone, whatever ``start`` is, and leave torch's
        generator alone. ``shuffle``: in a random order, else as stored. ``world``: of each batch only the share of this
        process.
        """
        share = (world or World()).share
        # Seeding reads only 32 bits. The golden ratio keeps the epochs of neighbouring seeds millions apart there.
        generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + epoch) % 2**32)
        count = len(self)
        order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        offsets = torch.randint(2 * self.padding + 1, (2, count), generator=generator)
        flips = torch.randint(2, (count,), generator=generator).bool()
        first = start * batch_size
        if first >= count:
            return
        stored = self.stored([share(batch) for batch in order[first:].split(batch_size)])
        draws = (part[first:].to(self.device).split(batch_size) for part in (order, offsets.T, flips))
        parts = zip(*([share(batch) for batch in batches] for batches in draws), strict=True)
        size, channels = self.image_size, self.in_channels
        for (images, index), (chosen, offset, flip) in zip(stored, parts, strict=True):
            if self.padding or self.flip:
                batch = self._augmented(images, index, offset, flip)
            else:
                batch = images.index_select(0, index)
            scaled = torch.addcmul(self.shift, batch.view(-1, size, size * channels), self.scale)
            yield scaled.view(-1, size, size, channels).permute(0, 3, 1, 2), self.labels.index_select(0, chosen)

    def _augmented(self, images: Tensor, index: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Crops of the padded ``images[index]`` at ``offsets`` ``(b, 2)`` (y, x), mirrored where ``flips`` ``(b,)``."""
        _, height, width, channels = images.shape
        size = self.image_size
        # Every line of a crop is one contiguous window of the flattened images: a gather of lines, not of pixels.
        windows = images.view(-1).as_strided((images.numel() // channels - size + 1, size * channels), (channels, 1))
        lines = torch.arange(size, device=self.device) + offsets[:, :1]
        starts = (index[:, None] * height + lines) * width + offsets[:, 1:]
        batch = windows.index_select(0, starts.view(-1)).view(-1, size, size, channels)
        if not self.flip:
            return batch
        # Both ways, then whole images chosen: copies of blocks, four times faster than torch.where by pixel.
        both = torch.cat((batch, batch.flip(2)))
        return both.index_select(0, torch.arange(len(flips), device=self.device) + len(flips) * flips)

    def _padded(self, images: Tensor) -> Tensor:
        return F.pad(images, (0, 0, *[self.padding] * 4)) if self.padding else images.contiguous()
