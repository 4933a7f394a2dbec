"""What is seen of a sweep: whose lines are whose, how far it is, and when it will have ended."""

from __future__ import annotations

import io
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from runs import BASE

from tdcompress.config.schema import LauncherConfig, MethodConfig
from tdcompress.results.record import Summary
from tdcompress.results.run import Run
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.launch import launchers
from tdcompress.train.launch.job import Job
from tdcompress.train.launch.sweep import Sweep, named
from tdcompress.train.watch import bar


def job(number, method="tt", words="", **changes):
    config = replace(BASE, method=MethodConfig(method), full_rank_epochs=0, **changes)
    return Job(config, Path(f"runs/{number}"), overrides=words)


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return named([job(0, epochs=10), job(1, "cp", epochs=10), job(2, "ht", epochs=10), job(3, "dense", epochs=10)])


def finished(epochs):
    return Summary("finished", epochs_done=epochs, epochs=10)


def test_names_say_arch_method_rank_seed_and_what_else_differs():
    words = [f"method={method} rank=10x seed=1 lr={lr} epochs=2" for method in ("tt", "dense") for lr in (1, 2)]
    jobs = [job(k, word.split()[0][7:], word, seed=1) for k, word in enumerate(words)]
    names = [one.name for one in named(jobs)]
    assert names == [
        *("lenet tt 10x seed 1 lr=1", "lenet tt 10x seed 1 lr=2"),
        *("lenet dense seed 1 lr=1", "lenet dense seed 1 lr=2"),
    ]


def test_each_line_says_whose_it_is_and_a_single_run_speaks_alone(jobs):
    lines = []
    Sweep([], jobs, lines.append, print).say(jobs[1], "first\n  second")
    Sweep([], jobs[:1], lines.append, print).say(jobs[0], "first\n  second")
    assert lines == ["lenet cp 10x seed 0  first\nlenet cp 10x seed 0    second", "first\n  second"]


def test_how_far_it_is_and_when_it_ends(jobs, monkeypatch):
    clock, lines, ended = [1000.0], [], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    Run(jobs[1].directory).write_summary(finished(4))  # of an earlier sweep that was interrupted
    sweep = Sweep([], jobs, lines.append, lambda *what: ended.append(what))
    assert sweep.told() == "0 of 4 runs done, 4 left" and sweep.seconds_left() is None
    sweep.begin(jobs[0])
    clock[0] += 100
    sweep.end(jobs[0], finished(10))
    assert sweep.seconds_left() == 100 * (6 + 10 + 10) / 10
    assert re.fullmatch(r"1 of 4 runs done, 3 left, ends about \d\d:\d\d", lines[-1])
    sweep.begin(jobs[1])
    sweep.begin(jobs[2])
    Run(jobs[1].directory).write_summary(finished(7))
    clock[0] += 30
    assert sweep.seconds_left() == pytest.approx(130 * (3 + 10 + 10) / (10 + 3))
    assert [run.job.name for run in sweep.running] == ["lenet cp 10x seed 0", "lenet ht 10x seed 0"]
    sweep.end(jobs[2], RuntimeError("no such layer"))
    assert sweep.told().startswith("1 of 4 runs done, 1 failed, 1 running, 1 left, ends about ")
    assert [one for one, _ in ended] == [jobs[0], jobs[2]] and len(lines) == 2


def launched(jobs, monkeypatch, make, lines):
    monkeypatch.setitem(launchers.LAUNCHERS, "basic", make)
    launchers.launch(jobs, LauncherConfig(), lines.append, lambda *_: None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_one_display_with_the_steps_in_it(jobs, monkeypatch):
    def make(starts, jobs, settings, sweep):
        for one in jobs:
            sweep.begin(one)
            for _ in bar(range(3), "epoch 1/1", 0, 3):
                time.sleep(0.26)  # longer than the bar's period
            print("a line", file=sys.stderr)
            sweep.end(one, finished(10))

    monkeypatch.setattr(sys, "stderr", Terminal())
    lines = []
    launched(jobs[:2], monkeypatch, make, lines)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue())
    assert lines == []
    for shown in (
        "0 of 2 runs done, 1 running, 1 left",
        "  lenet tt 10x seed 0  0 of 10 epochs",
        "epoch 1/1",
        "1 of 2",
    ):
        assert shown in text
    assert text.count("a line") == 2 and bar(range(3), "", 0, 3)


def test_an_interrupt_says_how_to_go_on(jobs, monkeypatch):
    def make(starts, jobs, settings, sweep):
        sweep.begin(jobs[0])
        sweep.end(jobs[0], finished(10))
        raise Interrupted("runs/1: interrupted; the same command goes on from epoch 3", 130)

    with pytest.raises(Interrupted, match=r"the same command goes on from epoch 3 \(1 of 4 runs done\)") as stop:
        launched(jobs, monkeypatch, make, [])
    assert stop.value.code == 130
    with pytest.raises(Interrupted, match=r"from epoch 3$"):
        launched(jobs[:1], monkeypatch, make, [])
