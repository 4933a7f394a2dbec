"""The ordinary PyTorch loop: what this package's loop is measured against.

Images are decoded, turned into tensors and normalised one by one through torchvision's transforms, batches come from a
``DataLoader`` without workers, the network is made of PyTorch's own modules, lies in its default memory format and
computes in float32, SGD is plain, and every step waits for the device twice to read the loss and the number of right
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ...config.schema import DatasetConfig
from ...data.datasets import statistics
from ...data.sources import Arrays


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Training images as torchvision's own data sets serve them: a Pillow image, transformed on its own."""

    def __init__(self, arrays: Arrays, config: DatasetConfig) -> None:
        images = arrays.train_images
        assert isinstance(images, Tensor), "decoded, as ``load`` gives them"
        self.images, self.labels = images.numpy(), arrays.train_labels
        mean, std = (value / 255 for value in statistics(images))
        augmentation = [transforms.RandomCrop(self.images.shape[1], config.padding)] if config.padding else []
        augmentation += [transforms.RandomHorizontalFlip()] if config.flip else []
        self.transform: Callable[..., Tensor] = transforms.Compose(
            [*augmentation, transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), int(self.labels[index])


def as_usual(model: nn.Module) -> nn.Module:
    """``model``, in place, with torch's own dropout, and every ReLU before the pooling that it follows.

    It computes the same: the two commute.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, nn.Dropout(child.p))
        if isinstance(parent, nn.Sequential):
            for position, (first, second) in enumerate(pairwise(parent)):
                if isinstance(first, nn.MaxPool2d) and isinstance(second, nn.ReLU):
                    parent[position], parent[position + 1] = second, first
    return model


class OrdinaryLoop:
    """Calling it trains ``model`` for one epoch and returns its mean loss and accuracy."""

    def __init__(
        self, model: nn.Module, dataset: Dataset[tuple[Tensor, int]], batch_size: int, device: torch.device
    ) -> None:
        self.model, self.device = as_usual(model).to(device), device
        self.loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def __call__(self) -> tuple[float, float]:
        self.model.train()
        loss_sum, correct, seen = 0.0, 0, 0
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            outputs = self.model(images)
            loss = F.cross_entropy(outputs, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.item() * len(labels)
            correct += (outputs.argmax(1) == labels).sum().item()
            seen += len(labels)
        return loss_sum / seen, correct / seen
