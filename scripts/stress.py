"""Kills and load: whether runs killed anywhere end as if nothing had happened, and whether many runs are too many.

    python scripts/stress.py                                   # everything, some twenty minutes on two cores
    python scripts/stress.py --kills 10 --runs 0 --plotted 0   # a part of it; 0 leaves a part out

--kills    SIGKILLs at random moments of a run, of one that streams its data, and of a sweep with launcher=local (there
           the launcher or one of its workers). The same command is started again, until it ends by itself; then every
           file is compared with those of a run that was left alone: metrics.csv but for times and memory,
           summary.json, and checkpoint.pt bit for bit.
--runs     runs of one sweep, --jobs of them at once; each directory must be complete.
--plotted  made-up runs that `tdc plot` has to draw, within 20 seconds and 1,000 MB.
--seed     of the moments at which processes are killed.

Prints a table, and exits with 1 unless all is as it should be. Linux only: /proc says which processes are whose.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tdcompress.results.record import Epoch, metrics_text

CLOCKS = ("train_seconds", "test_seconds", "images_per_second", "peak_memory_mb", "train_seconds_per_epoch", "seconds")
FILES = {".hydra/config.yaml", ".hydra/overrides.yaml", "checkpoint.pt", "lock", "metrics.csv", "summary.json"}
TINY = ["method=tt", "rank=3", "dataset.limit=200", "arch.width=0.25", "device=cpu"]
VICTIMS = {
    "run": ["train", *TINY, "epochs=8"],
    "streamed run": ["train", *TINY, "epochs=8", "dataset.stream=true", "dataset.workers=1"],
    "sweep": ["train", "-m", *TINY, "epochs=5", "seed=0,1,2,3", "launcher=local", "launcher.jobs=2"],
}
PLOT_SECONDS, PLOT_MB = 20, 1000
# A process starts with the peak memory of the one that made it, so one smaller than this script stands in between.
MEASURED = """if True:
    import resource, subprocess, sys, time
    began = time.monotonic()
    code = subprocess.call(sys.argv[1:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    sys.exit(code)
"""


@dataclass(frozen=True)
class Line:
    """A row of the table: what was tried, how often, how often it went as it should, in how many seconds and MB."""

    what: str
    tried: int
    right: int
    seconds: float
    megabytes: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key, value in (("kills", 50), ("runs", 200), ("jobs", 4), ("plotted", 10_000), ("seed", 0)):
        parser.add_argument(f"--{key}", type=int, default=value)
    asked = parser.parse_args()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="tdcompress-stress-") as scratch:
        place = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        ended(tdc(place, "train", *TINY, "epochs=1"))  # measures the device's rates, by which all others plan
        if asked.kills:
            lines += killed(place, asked.kills, random.Random(asked.seed))
        if asked.runs:
            lines.append(swept(place / "many", asked.runs, asked.jobs))
        if asked.plotted:
            lines.append(plotted(place / "plotted", asked.plotted, next((place / "results").glob("runs/*/*/*/seed0"))))
    print(f"\n{'':34}{'tried':>8}{'right':>8}{'seconds':>10}{'MB':>8}")
    for line in lines:
        megabytes = "-" if line.megabytes is None else f"{line.megabytes:,.0f}"
        print(f"{line.what:34}{line.tried:8}{line.right:8}{line.seconds:10,.1f}{megabytes:>8}")
    sys.exit(any(line.right < line.tried for line in lines))


def killed(place: Path, kills: int, draw: random.Random) -> list[Line]:
    """Each victim in turn, killed one to three times and then left alone, until there were ``kills``."""
    wholes = {name: whole(place / f"whole {name}", words) for name, words in VICTIMS.items()}
    tried, right = (dict.fromkeys(VICTIMS, 0) for _ in range(2))
    seconds = dict.fromkeys(VICTIMS, 0.0)
    for trial, (name, words) in enumerate(itertools.cycle(VICTIMS.items())):
        left = kills - sum(tried.values())
        if not left:
            break
        began, folder, times = time.monotonic(), place / f"trial {trial}", min(left, draw.randint(1, 3))
        startup, duration, expected = wholes[name]
        tried[name] += (done := sum(kill_once(folder, words, startup, duration, draw) for _ in range(times)))
        code, said = ended(tdc(folder, *words))
        different = differing(outcome(folder / "results"), expected)
        if code == 0 and not different:
            right[name] += done
        else:
            print(f"{name}, trial {trial}: exit code {code}, different: {', '.join(different) or 'nothing'}\n{said}")
        seconds[name] += time.monotonic() - began
        print(f"{sum(tried.values())} of {kills} kills", flush=True)
    return [Line(f"kills of a {name}, resumed equal", tried[name], right[name], seconds[name]) for name in VICTIMS]


def whole(folder: Path, words: list[str]) -> tuple[float, float, dict[str, Any]]:
    """Seconds until there are results, seconds until the end, and what is then there, if nothing interferes."""
    began = time.monotonic()
    process = tdc(folder, *words)
    while not (folder / "results").exists() and process.poll() is None:
        time.sleep(0.01)
    startup = time.monotonic() - began
    code, said = ended(process)
    if code:
        sys.exit(f"tdc {' '.join(words)} failed without being killed:\n{said}")
    return startup, time.monotonic() - began, outcome(folder / "results")


def kill_once(folder: Path, words: list[str], startup: float, duration: float, draw: random.Random) -> bool:
    """Start the command and kill it, or a worker of it; False if it ended before. One in ten dies before it writes."""
    early, share = draw.random() < 0.1, draw.random()
    process = tdc(folder, *words)
    began = time.monotonic()
    if not early:  # before there are results there is little to lose
        while time.monotonic() - began < startup and process.poll() is None:
            time.sleep(0.005)
    time.sleep(share * (startup if early else duration - startup))
    victims = [process.pid, *workers(process.pid)]
    victim = draw.choice(victims)
    if process.poll() is not None:
        process.communicate()
        return False
    try:
        os.kill(victim, 9)
    except ProcessLookupError:  # a worker that has just ended
        process.kill()
        victim = process.pid
    if victim == process.pid:  # whoever still holds the pipe is not waited for: the next start is at once
        process.wait()
    else:
        ended(process)
    return True


def workers(pid: int) -> list[int]:
    """The processes that process ``pid`` started."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def outcome(results: Path) -> dict[str, Any]:
    """Every file under ``results`` and what it says, but for times, memory and who holds a lock."""
    return {
        str(path.relative_to(results)): content(path) for path in sorted(results.glob("runs/**/*")) if path.is_file()
    }


def content(path: Path) -> Any:
    if path.suffix == ".pt":
        return timeless(torch.load(path, weights_only=True))
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    if path.suffix == ".csv":
        header, *rows = [line.split(",") for line in path.read_text().splitlines()]
        return [timeless(dict(zip(header, row, strict=True))) for row in rows]
    return path.read_bytes()


def timeless(value: Any) -> Any:
    """Nested values without clocks, tensors as their bytes (NaN included)."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in CLOCKS}
    if isinstance(value, (list, tuple)):
        return [timeless(inner) for inner in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return repr(value)


def differing(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]


def swept(folder: Path, runs: int, jobs: int) -> Line:
    """A sweep of ``runs`` tiny runs, and how many complete directories it leaves."""
    began = time.monotonic()
    words = ["train", "-m", *TINY, "epochs=1", f"seed=range({runs})", "launcher=local", f"launcher.jobs={jobs}"]
    code, said = ended(tdc(folder, *words))
    seconds = time.monotonic() - began
    if code:
        print(said)
    right = 0
    for directory in folder.glob("results/runs/*/*/*/seed*"):
        files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
        summary = json.loads((directory / "summary.json").read_text()) if files == FILES else {}
        right += summary.get("status") == "finished" and len((directory / "metrics.csv").read_text().splitlines()) == 2
    return Line(f"runs of a sweep, {jobs} at once", runs, right, seconds)


def plotted(folder: Path, runs: int, like: Path) -> Line:
    """``tdc plot`` over ``runs`` made-up runs: five methods, five ranks, four learning rates, the rest are seeds."""
    epochs, summary = 20, json.loads((like / "summary.json").read_text())
    grid = itertools.product(range(-(-runs // 100)), ("cp", "tucker", "tt", "tr", "ht"), range(5), (1, 2, 5, 10))
    for seed, method, step, hundredths in itertools.islice(grid, runs):
        rank, lr, accuracy = 2 << step, hundredths / 100, 0.9 + 0.01 * step + 1e-5 * seed
        directory = folder / f"results/runs/digits/lenet/{method}-{rank}-{hundredths:08d}/seed{seed}"
        directory.mkdir(parents=True)
        chosen = {"method": method, "rank": str(rank), "seed": seed, "parameters": 1000 * rank}
        chosen |= {"status": "finished", "epochs": epochs, "epochs_done": epochs, "test_accuracy": accuracy}
        own = {"lr": lr, "rank": rank, "seed": seed, "epochs": epochs}
        own["method"] = summary["config"]["method"] | {"format": method}
        text = json.dumps(summary | chosen | {"config": summary["config"] | own}, indent=1)
        (directory / "summary.json").write_text(text)
        rows = [
            Epoch(epoch, lr, 1 / epoch, accuracy, 1 / epoch, accuracy - 1 / (epoch + 4), 1.5, 0.2, 1000, 300)
            for epoch in range(1, epochs + 1)
        ]
        (directory / "metrics.csv").write_text(metrics_text(rows))
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "tdcompress", "plot"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    *files, figures = done.stdout.splitlines()
    seconds, cpu, megabytes = map(float, figures.split())
    right = done.returncode == 0 and seconds <= PLOT_SECONDS and megabytes <= PLOT_MB
    print(f"tdc plot drew {len(files)} files with {cpu:.1f} seconds of CPU")
    return Line(f"tdc plot of {runs:,} runs", 1, right, seconds, megabytes)


def tdc(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The verb at work in ``folder``."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tdcompress", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and all that it said."""
    said, _ = process.communicate()
    return process.returncode, said


if __name__ == "__main__":
    main()
