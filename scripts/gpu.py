"""What a GPU at hand for a short while is used for: a queue of jobs, the most valuable first, in slices of time.

    python scripts/gpu.py seconds=540 out=DIR data=DIR   # stops in time; the same command goes on with what is left

out       where everything goes: queue.csv (each job, its commands done, seconds and device), JOB.csv (its table), and
          in a folder for each job its runs and benchmarks, and what they said
data      a folder of images, train/CLASS/ and test/CLASS/; without it CIFAR-10 as torchvision has it
seconds   after which a job is interrupted, and no other begins
jobs      trainings at once; nvidia-cuda-mps-control -d beforehand lets them share the GPU instead of taking turns
only      names of jobs, for others than all
toy       the same queue with tiny networks, for a rehearsal on a CPU

A job that was interrupted goes on where it was: a training from its checkpoint, a benchmark with its next command.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas

from tdcompress.cli import main as tdc
from tdcompress.config.words import read
from tdcompress.device.machine import choose_device, device_name
from tdcompress.tensor.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]
GRACE = 60  # seconds that an interrupted command has to write its checkpoint
METHODS = ",".join(sorted(name for name, format in FORMATS.items() if format.factorised))
BLOCKS = ",".join(sorted(name for name in METHODS.split(",") if "channels" not in FORMATS[name].layouts))


@dataclass(frozen=True)
class Options:
    """The words of the command line."""

    out: str = ""
    data: str | None = None
    seconds: float = 540.0
    jobs: int = 6
    only: tuple[str, ...] = ()
    toy: bool = False


@dataclass(frozen=True)
class Job:
    """Commands under a name: words of ``tdc``, or of pytest where the first is "pytest"."""

    name: str
    commands: tuple[tuple[str, ...], ...]


def queue(options: Options) -> list[Job]:
    """The jobs, the most valuable first."""
    toy = options.toy
    network = ["arch=lenet", "arch.width=0.1"] if toy else ["arch=vgg16"]
    data = ["dataset=digits", "dataset.limit=60"]
    if not toy:
        data = ["dataset=cifar10", "dataset.flip=true", "dataset.image_size=32", "dataset.padding=4"]
    if options.data is not None:
        data = ["dataset=image_folder", f"dataset.root={options.data}", *data[1:]]
    together = [f"launcher={'local' if options.jobs > 1 else 'basic'}", f"launcher.jobs={options.jobs}"]
    batch = [*network, f"batch_size={30 if toy else 128}"]
    train = ["train", "-m", *together, *data, *batch]
    resnet = ["train", "-m", *together, *data, "arch=lenet" if toy else "arch=resnet20,resnet32"]
    resnet += ["arch.width=0.1", "batch_size=30"] if toy else ["batch_size=128"]
    methods = f"method={'tt' if toy else METHODS}"
    sweep = f"method={'dense,tt' if toy else 'dense,' + METHODS}"
    seeds = ("0",) if toy else ("0", "1", "2")
    sizes = ("4",) if toy else ("128", "1024", "512")
    bench = [f"repeats={1 if toy else 11}"]
    bench += ["arch=lenet", "width=0.1", "dataset=digits"] if toy else ["arch=vgg16"]
    rank = "rank=6" if toy else "rank=10x"
    steps = [
        ("bench", "step", *bench, *held, rank, f"batch_size={size}", f"precision={precision}", *mode)
        for mode, precision, held, size in itertools.product(
            [()] if toy else [(), ("compile=true",), ("cuda_graphs=false",)],
            ("fp32",) if toy else ("bf16", "fp32"),
            [("method=tt",)] if toy else [("layout=channels",), ("layout=paired",), (f"method={BLOCKS}",)],
            sizes,
        )
    ]
    several = f"seed={','.join(seeds)}"
    full = ("optim=cosine", f"epochs={3 if toy else 60}")
    places = ("tests/device/test_machine.py",) if toy else ("tests/device", "tests/data", "tests/train", "tests/layers")
    jobs = [
        Job("tests", (("pytest", *places),)),
        Job("step", tuple(steps)),
        Job("infer", (("bench", "infer", *bench, methods, rank, f"batch_size={'1' if toy else '1,128'}"),)),
        *(Job(f"cifar_{seed}", ((*train, *full, sweep, rank, f"seed={seed}"),)) for seed in seeds),
        Job("macs", ((*train, *full, sweep, "rank=5" if toy else "rank=macs:0.135", several),)),
        Job("resnet", ((*resnet, *full, sweep, f"rank={'4' if toy else '3x,5x'}", "seed=0"),)),
        Job("rank_sweep", ((*train, *full, sweep, f"rank={'4' if toy else '2x,5x,20x,50x,100x'}", "seed=0"),)),
        Job("epochs", ((*train, f"epochs={2 if toy else 5}", sweep, rank, "launcher=basic", "seed=0"),)),
        Job("reference", ((*train, f"epochs={2 if toy else 250}", "rank=reference", sweep, "seed=0"),)),
    ]
    unknown = sorted(set(options.only) - {job.name for job in jobs})
    if unknown:
        sys.exit(f"gpu.py: unknown job {unknown[0]}, known: {', '.join(job.name for job in jobs)}")
    return [job for job in jobs if not options.only or job.name in options.only]


def work(options: Options) -> None:
    """Do jobs until all are done or the time is up, and print what became of each."""
    out, ends = Path(options.out), time.monotonic() + options.seconds
    rows: dict[str, dict[str, Any]] = {row["job"]: row for row in known(out)}
    for job in queue(options):
        row = rows.setdefault(job.name, {"job": job.name, "done": 0, "failed": 0, "seconds": 0.0})
        row["commands"] = len(job.commands)
        while row["done"] < len(job.commands) and time.monotonic() < ends:
            began = time.monotonic()
            code = carried_out(job, row["done"], out / job.name, ends)
            row["seconds"] = round(row["seconds"] + time.monotonic() - began, 1)
            row["device"] = device_name(choose_device("auto"))
            if code is not None:  # else it was interrupted, and goes on
                row["done"], row["failed"] = row["done"] + 1, row["failed"] + (code != 0)
                table(job, out)
            out.mkdir(parents=True, exist_ok=True)
            pandas.DataFrame(rows.values()).to_csv(out / "queue.csv", index=False)
    for job in queue(options):
        row = rows[job.name]
        done = f"{row['done']} of {row['commands']} commands done"
        print(f"{job.name:12} {done}, {row['failed']} failed, {row['seconds']} s")


def known(out: Path) -> Iterator[dict[Any, Any]]:
    """The rows of an earlier slice."""
    with contextlib.suppress(FileNotFoundError):
        yield from pandas.read_csv(out / "queue.csv").to_dict("records")


def carried_out(job: Job, number: int, folder: Path, ends: float) -> int | None:
    """Run a command of a job in a process of its own; its exit code, None if it was interrupted at ``ends``."""
    folder.mkdir(parents=True, exist_ok=True)
    words = job.commands[number]
    process = multiprocessing.get_context("spawn").Process(target=command, args=(words, folder, number))
    process.start()
    process.join(max(0.0, ends - time.monotonic()))
    if not process.is_alive():
        return process.exitcode
    stop(process)
    return None


def stop(process: BaseProcess) -> None:
    """Interrupt a process, and kill it where that does not end it."""
    if process.pid is not None:
        os.kill(process.pid, signal.SIGINT)
    process.join(GRACE)
    process.kill()
    process.join()


def command(words: tuple[str, ...], folder: Path, number: int) -> None:
    """What the process does: a verb of ``tdc``, or the tests; its lines go to a file."""
    with open(folder / f"{number}.log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if words[0] == "pytest":
        line = [sys.executable, "-m", "pytest", *words[1:], f"--junitxml={folder.resolve() / 'tests.xml'}"]
        os.chdir(ROOT)
        os.execv(sys.executable, line)
    place = folder / str(number) if words[0] == "bench" else folder
    tdc([*words, f"results_dir={place}"])


def table(job: Job, out: Path) -> None:
    """Write JOB.csv: the rows of its benchmarks, of its runs, or of its tests."""
    folder = out / job.name
    benches = sorted(folder.glob("*/bench/*.csv"))
    if benches:
        pandas.concat(map(pandas.read_csv, benches)).to_csv(out / f"{job.name}.csv", index=False)
    elif (folder / "tests.xml").is_file():
        cases = pandas.read_xml(folder / "tests.xml", xpath=".//testcase", parser="etree")
        cases.assign(device=device_name(choose_device("auto"))).to_csv(out / f"{job.name}.csv", index=False)
    elif summaries := [json.loads(path.read_text()) for path in sorted(folder.glob("runs/**/summary.json"))]:
        pandas.DataFrame(summaries).drop(columns=["config", "layers"]).to_csv(out / f"{job.name}.csv", index=False)


if __name__ == "__main__":
    options = read(sys.argv[1:], Options)
    if not options.out:
        sys.exit("gpu.py needs out=, a folder for what it makes")
    work(options)
