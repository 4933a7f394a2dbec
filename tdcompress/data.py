"""Data sets as uint8 tensors on the device, shuffled and augmented there in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import DatasetConfig
from .sources import load


class DeviceDataset:
    """A split held on the device. ``mean`` and ``std``: per channel, in units of pixel values 0..255.

    ``padding`` and ``flip`` switch on random crops after zero padding and random horizontal flips.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        device: torch.device,
        mean: Tensor,
        std: Tensor,
        padding: int = 0,
        flip: bool = False,
    ) -> None:
        self.image_size, self.in_channels = images.shape[1], images.shape[3]
        self.padding, self.flip, self.device = padding, flip, device
        if padding:
            images = F.pad(images, (0, 0, padding, padding, padding, padding))
        self.images, self.labels = images.contiguous().to(device), labels.to(device)
        # One value per byte of a line of pixels: a loop over whole lines vectorises, one over three channels does not.
        self.scale = (1 / std).repeat(self.image_size).to(device)
        self.shift = (-mean / std).repeat(self.image_size).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> int:
        """Batches in an epoch, the last one perhaps smaller."""
        return -(-len(self) // batch_size)

    def epoch(
        self, batch_size: int, seed: int, epoch: int, shuffle: bool, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of float32 images ``(b, c, y, x)``, channels last, and labels, from batch ``start`` on.

        Order, crops and flips are a function of ``(seed, epoch)`` alone, whatever ``start`` is.
        """
        # Seeding reads only 32 bits. The golden ratio keeps the epochs of neighbouring seeds millions apart there.
        generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + epoch) % 2**32)
        count = len(self)
        order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        offsets = torch.randint(2 * self.padding + 1, (2, count), generator=generator).to(self.device)
        flips = torch.randint(2, (count,), generator=generator).bool().to(self.device)
        order = order.to(self.device)
        size, channels = self.image_size, self.in_channels
        for first in range(start * batch_size, count, batch_size):
            chosen = slice(first, first + batch_size)
            index = order[chosen]
            if self.padding or self.flip:
                images = self._augmented(index, offsets[:, chosen], flips[chosen])
            else:
                images = self.images.index_select(0, index)
            scaled = torch.addcmul(self.shift, images.view(-1, size, size * channels), self.scale)
            yield scaled.view(-1, size, size, channels).permute(0, 3, 1, 2), self.labels.index_select(0, index)

    def _augmented(self, index: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        _, height, width, channels = self.images.shape
        size = self.image_size
        # Every line of a crop is one contiguous window of the flattened images: a gather of lines, not of pixels.
        windows = self.images.view(-1).as_strided(
            (self.images.numel() // channels - size + 1, size * channels), (channels, 1)
        )
        lines = torch.arange(size, device=self.device) + offsets[0][:, None]
        starts = (index[:, None] * height + lines) * width + offsets[1][:, None]
        images = windows.index_select(0, starts.view(-1)).view(-1, size, size, channels)
        if not self.flip:
            return images
        # Both ways, then whole images chosen: copies of blocks, four times faster than torch.where by pixel.
        both = torch.cat((images, images.flip(2)))
        return both.index_select(0, torch.arange(len(flips), device=self.device) + len(flips) * flips)


def datasets(config: DatasetConfig, device: torch.device) -> tuple[DeviceDataset, DeviceDataset, int]:
    """The training and test splits on the device, normalised by the training images, and the number of classes."""
    arrays = load(config)
    mean, std = statistics(arrays.train_images)
    train = DeviceDataset(arrays.train_images, arrays.train_labels, device, mean, std, config.padding, config.flip)
    test = DeviceDataset(arrays.test_images, arrays.test_labels, device, mean, std)
    return train, test, arrays.classes


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, exactly, from the histogram of pixel values.

    The standard deviation of a channel that is the same everywhere is given as 1: normalised, it is 0.
    """
    values = torch.arange(256, dtype=torch.float64)
    counts = torch.zeros(images.shape[3], 256, dtype=torch.int64)
    for chunk in images.split(1000):  # a copy of the channel each, so never of the whole set
        for channel, count in enumerate(counts):
            count += torch.bincount(chunk[..., channel].reshape(-1), minlength=256)
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    return mean.float(), torch.where(variance > 0, variance, 1).sqrt().float()
