"""results/published made again by one protocol: every training, every table of times, the figures and the pages.

    python scripts/reproduce.py plan=true                  # what is done, what is left, and how many hours that takes
    python scripts/reproduce.py hours=2                    # stops in time; the same command goes on with what is left
    python scripts/reproduce.py cifar10=DIR label="NAME"   # CIFAR-10 as a folder of images, and what to call it
    python scripts/reproduce.py draw=true                  # only makes the tables and figures of the pages anew

out       where it goes: summary.csv, metrics.csv and parts.csv, of each run as it ends, golden.csv, bench/, figures/,
          report.md. The runs themselves lie beside them in runs/, which git ignores; what the tables have is not made
          again
hours     after which what runs is interrupted; it goes on from its checkpoint
cifar10   a folder of images, train/CLASS/ and test/CLASS/; without it CIFAR-10 as torchvision has it
label     what the rows call these images
data      where torchvision's data lie
jobs      trainings at once, a core each
only      names of parts, for others than all
plan      only say how far it is
draw      only make tables and figures anew

Runs whose golden losses have moved are of another version: they are named, and made again, as are tables of their
times. Runs on other images than those in ``out`` go to another ``out``, with tables.md in place of the pages.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
from publish import golden
from publish.draw import draw
from publish.protocol import PROTOCOL, Part

from tdcompress.cli import bench
from tdcompress.cli.shared.jobs import asked, job_of
from tdcompress.config.words import quoted, read
from tdcompress.device.files import write_text
from tdcompress.results.folders import delete
from tdcompress.results.identity import all_dense
from tdcompress.results.record import ENDED, Summary
from tdcompress.results.tables import read_results, write_results
from tdcompress.train.launch.job import Job
from tdcompress.train.launch.launchers import launch

_SECONDS = ["train_seconds", "test_seconds", "images_per_second"]


@dataclass(frozen=True)
class Options:
    """The words of the command line."""

    out: str = "results/published"
    hours: float | None = None
    cifar10: str | None = None
    label: str | None = None
    data: str = "data"
    jobs: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    only: tuple[str, ...] = ()
    plan: bool = False
    draw: bool = False


@dataclass
class Work:
    """A part, and those of its runs that the tables do not have."""

    part: Part
    jobs: list[Job]
    table: Path | None = None  # of times, where it is to be written

    @property
    def left(self) -> int:
        """How many runs, or tables, are to be made."""
        return len(self.jobs) if self.table is None else int(not self.table.is_file())

    def minutes(self, at_once: int) -> float:
        """How long they take."""
        return self.left * self.part.minutes / (1 if self.part.alone or self.part.is_table else at_once)


class Reproduction:
    """The whole protocol in one folder."""

    def __init__(self, options: Options, protocol: Sequence[Part] = PROTOCOL) -> None:
        self.options, self.out, self.protocol = options, Path(options.out), protocol
        parts = [part for part in protocol if not options.only or part.name in options.only]
        self.jobs = {part.name: self._jobs(part) for part in parts if not part.is_table}
        tables = {part.name: self.out / "bench" / f"{part.name}.csv" for part in parts if part.is_table}
        done = self.done()
        self.works = [
            Work(
                part, [job for job in self.jobs.get(part.name, []) if job.directory not in done], tables.get(part.name)
            )
            for part in parts
        ]

    def told(self, pace: float = 1.0) -> str:
        """How far it is, a line a part, then all; ``pace``: how many times as long as planned a run has taken."""
        at_once, lines = self.options.jobs, []
        for work in self.works:
            name, count = work.part.name, len(self.jobs.get(work.part.name, [0]))
            hours = pace * work.minutes(at_once) / 60
            lines.append(f"{name:22} {count - work.left:3} of {count:3}  {hours:5.1f} hours left  {work.part.what}")
        hours = pace * sum(work.minutes(at_once) for work in self.works) / 60
        return "\n".join([*lines, f"{sum(work.left for work in self.works)} left, {hours:.1f} hours"])

    def check(self) -> None:
        """Exit where the tables have runs of a part on other images: they would be taken for none, and go."""
        known = self._known_parts()
        for name, jobs in self.jobs.items():
            there = set(known.loc[known["part"] == name, "directory"])
            if there and there.isdisjoint(job.directory.relative_to(self.out).as_posix() for job in jobs):
                sys.exit(
                    f"reproduce.py: {self.out} has {name} of other images ({min(there)}): "
                    "give cifar10= as it was given there, or another out="
                )

    def forget_stale(self) -> None:
        """Measure the golden losses; name the runs of a version that had others, and take them from the tables.

        Tables of the times of such runs go, too.
        """
        known = golden.read(self.out / "golden.csv")
        now = [golden.measured(*key) for key in golden.KEYS]
        moved = {one.key for one in now if one.key in known and not one.agrees(known[one.key])}
        if moved and self.options.only:
            names = ", ".join(sorted({name for name, _ in moved}))
            sys.exit(f"reproduce.py: golden losses of {names} have moved: without only=, all stale runs are found")
        done, remade = self.done(), set()
        for work in self.works:
            stale = [job for job in self.jobs.get(work.part.name, []) if golden.key_of(job.config) in moved]
            for job in stale:
                if job.directory in done:
                    print(f"{job.directory} is of a version with other golden losses, and is made again")
                if job.directory.is_dir():
                    delete(job.directory, self.out)
            work.jobs += [job for job in stale if job not in work.jobs]
            remade |= {work.part.name for _ in stale}
        for work in self.works:
            if work.part.runs in remade and work.table is not None and work.table.is_file():
                print(f"{work.table} is of such runs, and is made again")
                work.table.unlink()
        self.publish(without={job.directory for work in self.works for job in work.jobs})
        golden.write(self.out / "golden.csv", [one if one.key in moved else known.get(one.key, one) for one in now])

    def make(self) -> None:
        """Make what is left, and publish each run as it ends.

        Trainings of neighbouring parts that are not timed are made together: no core waits for the last of a part, and
        dense epochs that they share are trained once.
        """
        began, planned = time.monotonic(), 0.0
        left = (work for work in self.works if work.left)
        for (timed, _), group in itertools.groupby(left, lambda work: (work.table, work.part.alone)):
            works = list(group)
            for work in works:
                print(f"{work.part.name}: {work.part.what}", flush=True)
            planned += sum(work.minutes(self.options.jobs) for work in works)
            if timed is not None:
                self._time(works[0].part, timed)
            else:
                self._train([job for work in works for job in work.jobs])
            print(self.told((time.monotonic() - began) / 60 / planned).splitlines()[-1], flush=True)

    def publish(self, without: Collection[Path] = ()) -> None:
        """Write the tables: the runs that have ended, of this folder and of the tables before.

        Times that were taken with other runs beside them are left out.
        """
        parts = self._parts()
        write_text(self.out / "parts.csv", parts.to_csv(index=False))
        alone = {str(self.out / directory) for directory in parts.loc[parts["alone"], "directory"]}
        runs, epochs = read_results(self.out)
        ended = runs["status"].isin(ENDED) & ~runs["directory"].isin({str(directory) for directory in without})
        for table, columns in ((runs, ["train_seconds_per_epoch"]), (epochs, _SECONDS)):
            table.loc[~table["directory"].isin(alone), columns] = math.nan
        write_results(self.out, runs[ended], epochs)

    def _train(self, jobs: Sequence[Job]) -> None:
        def ended(job: Job, outcome: Summary | Exception) -> None:
            if isinstance(outcome, Exception):
                print(f"{job.overrides}: {outcome}", flush=True)
                return
            for work in self.works:  # a dense run belongs to several
                work.jobs = [one for one in work.jobs if one.directory != job.directory]
            self.publish()

        launch(jobs, jobs[0].config.launcher, lambda line: print(line, flush=True), ended)

    def _time(self, part: Part, table: Path) -> None:
        runs, done = self._timed(part), self.done()
        if missing := [run for run in runs if run not in done or not run.is_dir()]:
            print(f"{part.name}: {missing[0]}, whose network is to be timed, is not here or has not ended", flush=True)
            return
        words = [*part.words[1:], *(["run=" + ",".join(quoted(str(run)) for run in runs)] if runs else [])]
        with tempfile.TemporaryDirectory() as folder:
            bench.run([*words, f"results_dir={folder}"])
            (made,) = Path(folder).glob("bench/*.csv")
            rows = pandas.read_csv(made)
            if runs:
                rows["run"] = [Path(run).relative_to(self.out).as_posix() for run in rows["run"]]
            write_text(table, rows.to_csv(index=False))

    def _timed(self, part: Part) -> list[Path]:
        """The runs whose networks a table is of."""
        jobs = [job for one in self.protocol if one.name == part.runs for job in self._jobs(one)]
        return [job.directory for job in jobs if job.config.seed == 0 and not all_dense(vars(job.config.method))]

    def _jobs(self, part: Part) -> list[Job]:
        some = self.options.jobs
        together = ["launcher=local", f"launcher.jobs={some}"] if some > 1 and not part.alone else ["launcher=basic"]
        words = [*part.words[1:], *self._images(part.images), *together, f"results_dir={quoted(str(self.out))}"]
        jobs = {job.directory: job for job in (one.get() for one in asked(words, job_of))}  # the dense one has no rank
        return sorted(jobs.values(), key=lambda job: job.config.seed)  # a whole table before a second seed

    def _images(self, name: str) -> list[str]:
        options = self.options
        if name != "cifar10" or options.cifar10 is None:
            return [f"dataset.root={quoted(options.data)}"] if name != "digits" else []
        label = [f"dataset.label={quoted(options.label)}"] if options.label is not None else []
        return ["dataset=image_folder", f"dataset.root={quoted(options.cifar10)}", "dataset.image_size=32", *label]

    def _parts(self) -> pandas.DataFrame:
        """Which runs belong to which part, and whether they are timed; of other parts what is known of them."""
        known = self._known_parts()
        mine = [
            (work.part.name, work.part.alone, job.directory.relative_to(self.out).as_posix())
            for work in self.works
            for job in self.jobs.get(work.part.name, [])
        ]
        others = known[~known["part"].isin(self.jobs)]
        parts = pandas.concat([others, pandas.DataFrame(mine, columns=known.columns)])
        return parts.sort_values("part", kind="stable", ignore_index=True)  # however they came, so that git shows news

    def _known_parts(self) -> pandas.DataFrame:
        table, columns = self.out / "parts.csv", ["part", "alone", "directory"]
        return pandas.read_csv(table) if table.is_file() else pandas.DataFrame(columns=columns).astype({"alone": bool})

    def done(self) -> set[Path]:
        """The directories of the runs that have ended, as the tables have them."""
        table = self.out / "summary.csv"
        rows = pandas.read_csv(table) if table.is_file() else pandas.DataFrame(columns=["directory", "status"])
        return {self.out / directory for directory in rows.loc[rows["status"].isin(ENDED), "directory"]}


def main(words: Sequence[str]) -> None:
    """Say how far the protocol is, or go on with it."""
    options = read(words, Options)
    unknown = sorted(set(options.only) - {part.name for part in PROTOCOL})
    if unknown:
        sys.exit(f"reproduce.py: unknown part {unknown[0]}, known: {', '.join(part.name for part in PROTOCOL)}")
    if options.draw:
        draw(Path(options.out))
        return
    whole = Reproduction(options)
    if options.plan:
        print(whole.told())
        return
    whole.check()
    whole.forget_stale()
    if options.hours is not None:
        timer = threading.Timer(3600 * options.hours, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
    try:
        whole.make()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on")
    if whole.done():
        draw(whole.out)
    print(whole.told())


if __name__ == "__main__":
    main(sys.argv[1:])
