"""Peak memory of a training step, measured in a process that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from ..device.memory import forget_peak, peak_memory
from ..tensor.errors import ConfigError
from .training import Network, TrainingStep

_STEPS = 2  # the first one makes the optimizer's buffers, the second works with them


def step_memory(step: TrainingStep) -> float:
    """MB (2**20 bytes) that ``step`` needs at most, called a few times.

    On a CPU the process's resident set above its level once network, optimizer and batch are made; on CUDA all that
    tensors hold. Raises ``ConfigError`` with the process's last words if it fails.
    """
    asked = {
        "network": asdict(step.network),
        "paths": step.paths,
        "device": step.device.type,
        "threads": torch.get_num_threads(),
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        # Memory that glibc keeps after it was freed would hide what the step takes anew.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-m", __name__, json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"measuring memory failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return float(done.stdout)


def main(text: str) -> None:
    """Print the MB of the step that ``text`` (JSON) describes."""
    asked = json.loads(text)
    torch.set_num_threads(asked["threads"])
    device = torch.device(asked["device"])
    step = TrainingStep(Network(**asked["network"]), device, asked["paths"])
    forget_peak(device)
    level = 0.0 if device.type == "cuda" else peak_memory(device)
    for _ in range(_STEPS):
        step()
    print(peak_memory(device) - level)


if __name__ == "__main__":
    main(sys.argv[1])
