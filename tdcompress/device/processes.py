"""One run on several processes, as ``torchrun`` starts them: each takes its share of every batch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
_PATIENCE = timedelta(minutes=30)  # how long processes wait for one that reads data or measures plans
_joins = itertools.count()


@dataclass(frozen=True)
class World:
    """The processes of a run, of which this is number ``rank`` of ``size``; by default a process alone.

    The methods from ``total`` on must be called by all processes alike; of one alone they return what they are given.
    """

    rank: int = 0
    size: int = 1
    control: Any = None  # a group for decisions, which no device has to wait for

    @property
    def first(self) -> bool:
        """Whether this process writes what the run leaves on disk."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch's entries (first axis)."""
        return batch[self.rank :: self.size] if self.size > 1 else batch

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model to call: the mean of all processes' gradients arrives at each of them.

        Batch normalisation sees a process's own share of a batch; on CUDA it is synchronised.
        """
        if self.size == 1:
            return model
        if next(model.parameters()).is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)

    def total(self, value: Tensor) -> Tensor:
        """The sum of the tensors ``value`` over all processes, for all of them."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def agreed(self, number: int | None) -> int | None:
        """The largest ``number`` of any process, for all of them; None where every process gave None."""
        if self.size == 1:
            return number
        value = torch.tensor(-1 if number is None else number)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.control)
        return None if value < 0 else int(value)

    def told(self, value: T) -> T:
        """The ``value`` that the first process gave, for all of them; it can be anything that pickles."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, group=self.control)
        return values[0]

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks, for all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values


@cache
def _met() -> tuple[Any, int, int]:
    """The store by which the processes find each other, the rank of this one, and how many there are."""
    found: tuple[Any, int, int] = next(dist.rendezvous("env://", timeout=_PATIENCE))  # type: ignore[attr-defined]
    return found


@contextmanager
def joined() -> Iterator[World]:
    """The process group that ``torchrun``'s environment variables describe, left at the end; without them one alone.

    NCCL connects GPUs, each process having that of its ``LOCAL_RANK``; gloo connects CPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = _met()
    # Keys of its own: under those of a group that was left stand addresses where nobody listens any more.
    store = dist.PrefixStore(f"group {next(_joins)}", store)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), size, dist.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        dist.destroy_process_group()
