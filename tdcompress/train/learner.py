"""The state of learning: everything that a checkpoint holds, and the two loops that use it."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..compression.ranks.adaptive import Shrinkage, shrink
from ..compression.survey.plans import plans, use_plans
from ..compression.switch import begin_anew, hand_over, refuse
from ..config.schema import TrainConfig
from ..data.batches import Batches
from ..device.graphs import Passes, passes
from ..device.precision import autocast, effective_precision
from ..device.processes import World
from ..layers.kinds import dense_weights, factorised
from ..results.record import Epoch, best_epoch
from .checkpoint import random_states, restore_random_states
from .full_rank.start import Start, Switch
from .interrupt import StopSignals
from .optim.build import build_scheduler, restore_optimizer
from .optim.groups import Groups, frobenius_penalty, multiples_in
from .optim.sensitivity import sensitivities
from .watch import bar

Steps = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Learner:
    """A network in training, at step ``batch`` of epoch ``epoch`` (both from 0), after the epochs in ``rows``.

    Nothing in its loops waits for the device: sums stay there and are read once a loop has ended. With the other
    processes of ``world`` it learns as one alone would from their batches together. ``shrinkage``: when its ranks are
    cut; ``start``: of a run that begins at full rank. ``best``: of the best epoch by validation its number, weights and
    plans; see ``checkpoint.chosen``.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        batches: int,
        device: torch.device,
        world: World | None = None,
        shrinkage: Shrinkage | None = None,
        start: Start | None = None,
    ) -> None:
        self.config, self.model, self.batches, self.device = config, model, batches, device
        self.world = world or World()
        self.shrinkage, self.start = shrinkage, start
        self.precision = effective_precision(config.precision, device)
        self.parallel = self.world.parallel(model)
        self.forward = self._passes()
        if start is not None:
            self._begin_cutting()
        self.groups = Groups(config, start.names if start else None, device)
        self.optimizer = self.groups.optimizer(model)
        if start is not None:
            refuse(self.optimizer)
        self.scheduler = build_scheduler(config, self.optimizer, batches)
        self.step_scheduler = self.scheduler if config.optim.interval == "step" else None
        self.rows: list[Epoch] = []
        self.best: dict[str, Any] | None = None
        self._open_epoch(0)

    def state(self) -> dict[str, Any]:
        """Plain values and tensors; ``restore`` of it goes on as if nothing had been in between."""
        return {
            "phase": "full rank" if self.full_rank else "cores",
            "start": self.start.plain() if self.start else None,
            "rows": [asdict(row) for row in self.rows],
            "epoch": self.epoch,
            "batch": self.batch,
            "lr": self.lr,
            "seconds": self.seconds,
            "loss_sum": self.world.total(self.loss_sum).cpu(),
            "correct": self.world.total(self.correct).cpu(),
            "plans": plans(self.model),
            "model": self.model.state_dict(),
            "multiples": self.multiples,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "random": self.world.gathered(random_states(self.device)),
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what ``state`` of an equal learner said. Raises all kinds of errors for one of another."""
        self.rows = [Epoch.of(row) for row in state["rows"]]
        self.epoch, self.batch, self.best = state["epoch"], state["batch"], state["best"]
        self.lr, self.seconds = state["lr"], state["seconds"]
        if self.world.first:  # the sums so far are counted once
            self.loss_sum = state["loss_sum"].to(self.device)
            self.correct = state["correct"].to(self.device)
        use_plans(self.model, state["plans"])  # numbers are the same bit for bit only along the same paths
        self.model.load_state_dict(state["model"])
        self.groups.renew(self.optimizer, self.model, state.get("multiples", {}))
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        states = state["random"]
        restore_random_states(states[self.world.rank % len(states)], self.device)

    def train(
        self, data: Batches, stop: StopSignals, watched: Callable[[Steps], Steps] | None = None
    ) -> tuple[float, float] | None:
        """Go on to the epoch's end: mean loss and accuracy, or None if stopped before.

        ``watched`` gives the steps back and may look at what happens between them.
        """
        model, optimizer, scheduler = self.model, self.optimizer, self.step_scheduler
        loss_sum, correct = self.loss_sum, self.correct
        config = self.config
        clip, parameters = config.optim.clip, list(model.parameters())
        frobenius = config.method.decay == "frobenius" and self.groups.weight_decay > 0 and bool(factorised(model))
        title = f"epoch {self.epoch + 1}/{config.epochs}"
        model.train()
        began = time.perf_counter()
        world, size, count = self.world, config.batch_size, len(data)
        steps: Steps = data.epoch(size, config.seed, self.epoch, shuffle=True, start=self.batch, world=world)
        if watched is not None:
            steps = watched(steps)
        for images, labels in bar(steps, title, self.batch, self.batches):
            with autocast(self.device, self.precision):
                outputs = self.forward(images)
            loss = F.cross_entropy(outputs.float(), labels, reduction="sum")
            optimizer.zero_grad(set_to_none=True)
            # The mean over the whole batch, of which other processes have their parts.
            (loss * (world.size / min(size, count - self.batch * size))).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            if frobenius:  # beyond the clipping, as the optimizer's own decay is
                frobenius_penalty(model, self.groups.weight_decay).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            loss_sum.add_(loss.detach())
            correct.add_((outputs.detach().argmax(1) == labels).sum())
            self.batch += 1
            stop.number = world.agreed(stop.number)
            if stop.number is not None:
                break
        # Waits for the device, so that the clock below is right.
        total, right = world.total(loss_sum).item(), world.total(correct).item()
        self.seconds += time.perf_counter() - began
        return (total / count, right / count) if self.batch == self.batches else None

    def evaluate(self, data: Batches, batch_size: int, stop: StopSignals) -> tuple[float, float] | None:
        """Mean loss and accuracy over ``data``, or None if stopped before the end. Changes no state."""
        loss_sum, correct = self._zeros()
        self.model.eval()
        with torch.inference_mode():
            for images, labels in data.epoch(batch_size, self.config.seed, 0, shuffle=False, world=self.world):
                with autocast(self.device, self.precision):
                    outputs = self.forward(images)
                loss_sum.add_(F.cross_entropy(outputs.float(), labels, reduction="sum"))
                correct.add_((outputs.argmax(1) == labels).sum())
                stop.number = self.world.agreed(stop.number)
                if stop.number is not None:
                    return None
        return self.world.total(loss_sum).item() / len(data), self.world.total(correct).item() / len(data)

    def has_just_shrunk(self) -> bool:
        """Whether ranks were cut since the last epoch was tested."""
        if self.shrinkage is None or self.full_rank:
            return False
        return self.shrinkage.wanted(self.model, self.epoch) is not None

    def close_epoch(self, row: Epoch) -> bool:
        """Record the epoch that has ended and move on to the next. Whether the network is smaller now."""
        self.rows = [*self.rows, row]
        if best_epoch(self.rows) is row:
            weights = {name: value.to("cpu", copy=True) for name, value in self.model.state_dict().items()}
            self.best = {"epoch": row.epoch, "model": weights, "plans": plans(self.model)}
        if self.scheduler and self.step_scheduler is None:
            with warnings.catch_warnings():
                # Torch misses an optimizer step before this one if the epoch's steps were all before a resume.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                # A plateau is looked for in the loss on the validation images, or else in training: the test set
                # decides nothing here.
                seen = row.validation_loss if row.validated else row.train_loss
                loss: list[Any] = [seen] if isinstance(self.scheduler, ReduceLROnPlateau) else []
                self.scheduler.step(*loss)
        self._open_epoch(self.epoch + 1)
        if self.start is not None and row.finite:
            self.start.close_epoch(self.model)
        if self.shrinkage is None or self.full_rank or not row.finite:
            return False
        wanted = self.shrinkage.wanted(self.model, self.epoch)
        if wanted is None:
            return False
        cut = self._shrunk(wanted, self.shrinkage)
        if not cut:
            return False
        for core in cut:
            begin_anew(self.optimizer, core, [core])
        self._regroup()
        self._renew()
        return True

    def _shrunk(self, wanted: int, shrinkage: Shrinkage) -> list[nn.Parameter]:
        """The cores that changed as ranks were cut; the first process decides and tells the others."""
        if self.world.first:
            felt = sensitivities(self.model, self.optimizer)
            last = wanted == shrinkage.target
            changed = shrink(self.model, wanted, shrinkage.fixed, shrinkage.multiple, felt, last, shrinkage.costs)
        if self.world.size == 1:
            return changed
        layers = factorised(self.model)
        held = {name: (layer.graph.ranks, [core.cpu() for core in layer.tensors()]) for name, layer in layers.items()}
        held = self.world.told(held)
        if not self.world.first:
            others = {name: layer for name, layer in layers.items() if held[name][0] != layer.graph.ranks}
            for name, layer in others.items():
                ranks, cores = held[name]
                layer.resize(layer.graph.with_ranks(ranks), [core.to(self.device) for core in cores])
            changed = [core for layer in others.values() for core in layer.tensors()]
        use_plans(self.model, self.world.told(plans(self.model)))
        return changed

    @property
    def full_rank(self) -> bool:
        """Whether the network is dense still, of a run that begins at full rank."""
        return self.start is not None and self.start.lasts

    @property
    def due(self) -> bool:
        """Whether the epochs at full rank have ended, so that ``switch`` comes next."""
        return self.start is not None and self.batch == 0 and self.world.told(self.start.due(self.epoch))

    def switch(self, factorise: Callable[[nn.Module], nn.Module]) -> Switch:
        """Go on with the cores that ``factorise`` puts into the place of the network's dense weights."""
        assert self.start is not None
        began = time.perf_counter()
        weights = dense_weights(self.model)
        self._unwrap()
        self.model, self.best = factorise(self.model), None
        hand_over(self.optimizer, weights, self.model)
        end = self.start.end(self.epoch, time.perf_counter() - began)
        self._regroup()
        self._begin_cutting()
        self._renew()
        return end

    @property
    def multiples(self) -> dict[str, float]:
        """What each core has of the learning rate, by name; empty where all have the same."""
        return multiples_in(self.optimizer, self.model)

    def _regroup(self) -> None:
        self.groups.renew(self.optimizer, self.model, self.world.told(self.groups.multiples(self.model)))

    def _begin_cutting(self) -> None:
        end = self.start.switch if self.start is not None else None
        if self.shrinkage is not None and end is not None:
            self.shrinkage = replace(self.shrinkage, begun=end.epoch)

    def _renew(self) -> None:
        """Forget what was recorded, compiled or wrapped for other sizes."""
        self._unwrap()
        if self.config.compile:
            torch.compiler.reset()  # which counts towards the limit of recompilations
        self.parallel = self.world.parallel(self.model)
        self.forward = self._passes()

    def _unwrap(self) -> None:
        """Free what stands in circles around a wrapped network: hooks on its parameters, gradients of other sizes."""
        wrapped = self.forward is not self.model
        self.forward = self.parallel = self.model
        if wrapped:
            gc.collect()

    def _passes(self) -> Passes:
        """The network as the loops call it; a user's own may hold what cannot be recorded, or compiled as a whole."""
        config, ours = self.config, not self.config.arch.target
        graphs = config.cuda_graphs and ours and self.world.size == 1
        return passes(self.parallel, config.batch_size, self.device, graphs, config.compile, whole=ours)

    def _open_epoch(self, epoch: int) -> None:
        self.epoch, self.batch, self.seconds = epoch, 0, 0.0
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        self.loss_sum, self.correct = self._zeros()

    def _zeros(self) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.zeros((), dtype=torch.float64, device=self.device),
            torch.zeros((), dtype=torch.int64, device=self.device),
        )
