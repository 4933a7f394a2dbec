"""Optimizer and learning-rate schedule from their ``_target_`` dictionaries."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ...config.schema import TrainConfig
from ...config.targets import find_target
from ...tensor.errors import ConfigError

_FUSED_ON = ("cpu", "cuda")


def weight_decay(config: TrainConfig) -> float:
    """The optimizer's: as chosen, its default, or 0 where it has none.

    Raises ``ConfigError`` for an optimizer that makes no step as this package's loop asks for it (LBFGS, SparseAdam).
    """
    value = config.optim.optimizer.get("weight_decay", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"optim.optimizer.weight_decay={value} is not a number")
    parameter = nn.Parameter(torch.zeros(1, 1, device="cpu"))
    parameter.grad = torch.zeros(1, 1, device="cpu")
    like = build_optimizer(config, [parameter], torch.device("cpu"))
    _call(like.step, "optim.optimizer")
    return float(like.defaults.get("weight_decay", 0.0))


def build_optimizer(config: TrainConfig, parameters: Iterable[Any], device: torch.device) -> Optimizer:
    """The optimizer of parameters, or groups of them, at learning rate ``config.lr``.

    Fused where it can be and nothing else was asked for.
    """
    target, options = _split(config.optim.optimizer, "optim.optimizer", "torch.optim.SGD")
    options = {"lr": config.lr, **options}
    parameters = list(parameters)
    takes = inspect.signature(target).parameters
    if "fused" in takes and not {"fused", "foreach", "differentiable"} & set(options) and device.type in _FUSED_ON:
        options["fused"] = True  # one kernel for all parameters
    if not options.get("differentiable"):
        target = _without_compiler(target)
    optimizer = _call(target, "optim.optimizer", parameters, **options)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optim.optimizer._target_ gives a {type(optimizer).__name__}, not a torch optimizer")
    return optimizer


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """``optimizer.load_state_dict``, and what is held for a parameter's entries lies in memory as the parameter does.

    Fused, an optimizer takes that for granted and pairs the wrong entries where it is not so; cores of earlier versions
    were laid out along their plans.
    """
    optimizer.load_state_dict(state)
    for parameter, held in optimizer.state.items():
        for key, value in held.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                held[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def build_scheduler(config: TrainConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler | None:
    """The schedule, or None. The values "epochs", "steps" (of the whole run) and "lr" stand for these numbers."""
    if not config.optim.scheduler:
        return None
    target, options = _split(config.optim.scheduler, "optim.scheduler", "torch.optim.lr_scheduler.StepLR")
    words = {"epochs": config.epochs, "steps": config.epochs * steps_per_epoch, "lr": config.lr}
    other = "epochs" if config.optim.interval == "step" else "steps"
    odd = next((key for key, value in options.items() if value == other), None)
    if odd is not None:
        raise ConfigError(
            f"optim.scheduler.{odd}={other}, and optim.interval={config.optim.interval}: the schedule is asked after "
            f"every {config.optim.interval}, use the other word or the other interval"
        )
    options = {key: words.get(value, value) if isinstance(value, str) else value for key, value in options.items()}
    scheduler = _call(target, "optim.scheduler", optimizer, **options)
    if isinstance(scheduler, ReduceLROnPlateau) and config.optim.interval == "step":
        raise ConfigError("optim.interval=step: ReduceLROnPlateau looks at an epoch's loss, use optim.interval=epoch")
    if not isinstance(scheduler, LRScheduler):
        raise ConfigError(f"optim.scheduler._target_ gives a {type(scheduler).__name__}, not a torch scheduler")
    return scheduler


def _split(values: dict[str, Any], key: str, example: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    if "_target_" not in values:
        raise ConfigError(f"{key} needs a _target_ such as {example}")
    return find_target(values["_target_"], key), {name: value for name, value in values.items() if name != "_target_"}


def _without_compiler(optimizer: Any) -> Any:
    """The same class without the guards that keep ``torch.compile`` out of it.

    They import the compiler upon the first step, which takes as long as importing torch, and only matter to one who
    compiles the optimizer.
    """
    if not (inspect.isclass(optimizer) and issubclass(optimizer, Optimizer)):
        return optimizer
    guarded = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    bare = {name: inspect.unwrap(getattr(optimizer, name)) for name in guarded}
    bare["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), bare | {"__module__": optimizer.__module__})


def _call(target: Callable[..., Any], key: str, *args: Any, **options: Any) -> Any:
    try:
        return target(*args, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from None
