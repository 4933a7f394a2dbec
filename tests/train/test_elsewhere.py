"""The product imports and trains where Python has nothing of Unix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What Windows lacks is taken away once torch and filelock, which have their own ways there, are in.
WITHOUT = """if True:
    import asyncio, multiprocessing, os, pkgutil, signal, subprocess, sys, importlib
    import filelock, matplotlib.figure, numpy, pandas, rich.progress, sklearn.datasets, torch, torchvision
    import torch.utils.data, torch.profiler
    for module in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules[module] = None
    for name in ("fork", "register_at_fork", "sched_getaffinity", "sysconf", "geteuid", "killpg", "setsid"):
        delattr(os, name)
    for name in ("pthread_sigmask", "SIGKILL", "pause"):
        delattr(signal, name)
    sys.platform = "win32"
    import tdcompress
    for module in pkgutil.walk_packages(tdcompress.__path__, "tdcompress."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from tdcompress.config.schema import ArchConfig, DatasetConfig, OptimConfig, TrainConfig
    from tdcompress.results.rows import read_metrics, read_runs
    from tdcompress.results.run import Run
    from tdcompress.train.run import train
    config = TrainConfig(
        dataset=DatasetConfig("digits", image_size=16, limit=60), arch=ArchConfig("lenet", width=0.1),
        optim=OptimConfig({"_target_": "torch.optim.SGD"}), epochs=1, device="cpu", precision="fp32",
    )
    train(config, Run(sys.argv[1] + "/runs/digits/lenet/tt-8/seed0"), lambda line: None)
    runs = read_runs(sys.argv[1])
    print(*runs.status, *read_metrics(runs).epoch)
"""


def test_without_anything_of_unix(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "finished 1\n", done.stderr
