"""Peak memory, measured in a process that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..device.clock import Call
from ..device.memory import forget_peak, peak_memory
from ..tensor.errors import ConfigError
from .training import Network, TrainingStep

_STEPS = 2  # the first one makes the optimizer's buffers, the second works with them


def step_memory(step: TrainingStep) -> float:
    """MB (2**20 bytes) that ``step`` needs at most, called a few times, above network and batch.

    Gradients and the optimizer's buffers are in it; on CUDA all that tensors hold. Raises ``ConfigError`` with the
    process's last words if it fails.
    """
    asked = {
        "network": asdict(step.network),
        "paths": step.paths,
        "device": step.device.type,
        "threads": torch.get_num_threads(),
    }
    return alone(__name__, asked)


def alone(module: str, asked: Mapping[str, Any]) -> float:
    """The MB that the ``module``, started as a process, says a call needs: it is given ``asked`` as JSON.

    Raises ``ConfigError`` with the process's last words if it fails.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        # Memory that glibc keeps after it was freed would hide what a call takes anew.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-m", module, json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"measuring memory failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return float(done.stdout)


def peak(call: Call, device: torch.device, times: int = 1) -> float:
    """MB that so many calls need at most: of the process above its level before, on CUDA all that tensors hold."""
    forget_peak(device)
    level = 0.0 if device.type == "cuda" else peak_memory(device)
    for _ in range(times):
        call()
    return peak_memory(device) - level


def main(text: str) -> None:
    """Print the MB of the step that ``text`` (JSON) describes."""
    asked = json.loads(text)
    torch.set_num_threads(asked["threads"])
    device = torch.device(asked["device"])
    step = TrainingStep(Network(**asked["network"]), device, asked["paths"])
    print(peak(step, device, _STEPS))


if __name__ == "__main__":
    main(sys.argv[1])
