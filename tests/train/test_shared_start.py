"""Dense epochs that the runs of a sweep have in common: trained once, with the same end as if each had its own."""

from __future__ import annotations

import threading
from dataclasses import replace

import pandas
import pytest
import torch
from runs import make
from training import LEFT, config_in, metrics, run_of, stop_at, validating

from tdcompress.config.schema import LauncherConfig, MethodConfig, validate
from tdcompress.device.files import RunError
from tdcompress.results.identity import plain
from tdcompress.results.rows import read_runs
from tdcompress.results.run import Run
from tdcompress.train.full_rank.shared import begins_with, directory_of
from tdcompress.train.interrupt import Interrupted
from tdcompress.train.launch import local
from tdcompress.train.launch.job import Job
from tdcompress.train.launch.launchers import launch
from tdcompress.train.launch.starts import starts_of
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("one_thread", "small_images")


def config_of(results, method="tt", **changes):
    config = config_in(
        results, method=MethodConfig(method), **({"rank": "5x", "epochs": 4, "full_rank_epochs": 2} | changes)
    )
    return validate(config)


def job_of(config):
    return Job(config, run_of(config).directory)


def swept(*configs):
    """Make these runs as a sweep: the lines that were said, and what became of each run, by its directory."""
    lines, outcomes = [], {}
    launch(
        [job_of(config) for config in configs],
        LauncherConfig(),
        lines.append,
        lambda job, outcome: outcomes.update({job.directory: outcome}),
    )
    return lines, outcomes


def weights(config):
    return torch.load(run_of(config).directory / "checkpoint.pt", weights_only=True)["model"]


def begun_alone(lines):
    """How many networks began with the first epoch."""
    return sum("epoch 1/4" in line for line in lines)


def made_alone(config, results):
    """The summary of this run made by itself, to the same end: metrics and weights are equal."""
    alone = replace(config, results_dir=str(results))
    summary = train(alone, run_of(alone), print)
    assert metrics(run_of(config)).equals(metrics(run_of(alone)))
    here, there = weights(config), weights(alone)
    assert here.keys() == there.keys() and all(here[key].equal(there[key]) for key in here)
    return summary


def test_as_if_each_had_trained_its_own(tmp_path):
    shared = [config_of(tmp_path / "shared", method, full_rank_epochs="auto") for method in ("tt", "tucker")]
    lines, outcomes = swept(*shared)
    (start,) = (tmp_path / "shared" / "starts").glob("*/seed0")
    assert begun_alone(lines) == 1 and set(outcomes) == {run_of(config).directory for config in shared}
    assert {path.name for path in start.iterdir()} == LEFT
    spent = (start / "metrics.csv").read_text()
    for config in shared:
        assert (run_of(config).directory / "metrics.csv").read_text().startswith(spent)  # their seconds, too
        summary = made_alone(config, tmp_path / "alone")
        found = outcomes[run_of(config).directory]
        assert found.switch["shared"] == str(start) and summary.switch["shared"] is None
        assert found.switch["epoch"] == summary.switch["epoch"]
    assert len(read_runs(tmp_path / "shared")) == 2  # the start is none that is compared


def test_a_dense_run_goes_on_from_them(tmp_path):
    tt, dense = (config_of(tmp_path / "shared", method) for method in ("tt", "dense"))
    longer = config_of(tmp_path / "shared", full_rank_epochs=3)
    lines, outcomes = swept(dense, tt)
    assert begun_alone(lines) == 1 and len(outcomes) == 2
    start = directory_of(tt)
    assert f"dense seed 0  {start}: going on from epoch 3, step 1" in "\n".join(lines)
    expected = made_alone(dense, tmp_path / "alone")
    found = outcomes[run_of(dense).directory]
    assert replace(found, config={}, train_seconds_per_epoch=0) == replace(
        expected, config={}, train_seconds_per_epoch=0
    )
    train(longer, Run(directory_of(longer)), print, dense_only=True)
    assert begins_with(dense, "auto") == directory_of(longer) and begins_with(tt, "auto") == start
    assert begins_with(replace(dense, lr=0.3), "auto") is None and begins_with(replace(dense, seed=1), "auto") is None


def test_a_dense_run_of_several_machines_counts_the_seconds_of_the_last(tmp_path):
    tt, dense = config_of(tmp_path), config_of(tmp_path, "dense")
    start = Run(directory_of(tt))
    train(tt, start, print, dense_only=True)
    start.write_summary(replace(start.summary(), device="another"))
    summary = train(dense, run_of(dense), print)
    seconds = pandas.read_csv(run_of(dense).directory / "metrics.csv")["train_seconds"]
    assert summary.device_since == 3 and summary.train_seconds_per_epoch == pytest.approx(seconds[2:].median())


@pytest.mark.parametrize("decay", ["scaled", "frobenius"])
def test_a_decay_of_cores_makes_no_other_dense_run(tmp_path, decay):
    tt, dense = config_of(tmp_path), config_of(tmp_path, "dense")
    decayed = replace(dense, method=replace(dense.method, decay=decay))
    decayed = replace(decayed, optim=replace(decayed.optim, optimizer=decayed.optim.optimizer | {"weight_decay": 0.1}))
    tt = replace(tt, optim=decayed.optim)
    train(tt, Run(directory_of(tt)), dense_only=True)
    lines = []
    summary = train(decayed, run_of(decayed), lines.append)
    assert summary.status == "finished" and begun_alone(lines) == 0


def test_a_dense_run_goes_on_from_the_start_of_its_precision(tmp_path):
    short = config_of(tmp_path, precision="fp32")
    long = config_of(tmp_path, precision="bf16", full_rank_epochs=3)
    for config in (short, long):
        train(config, Run(directory_of(config)), dense_only=True)
    dense = config_of(tmp_path, "dense", precision="auto")
    assert begins_with(dense, "auto") == begins_with(dense, "bf16") == directory_of(long)
    assert begins_with(dense, "fp32") == directory_of(short)
    dense = replace(dense, precision="fp32")
    lines = []
    train(dense, run_of(dense), lines.append)
    assert begun_alone(lines) == 0


@pytest.mark.parametrize("harm", ["damaged", "gone", "another file"])
def test_a_start_that_is_lost_is_made_again_once(tmp_path, harm):
    configs = [config_of(tmp_path, method) for method in ("tt", "tucker")]
    path = directory_of(configs[0]) / "checkpoint.pt"
    train(configs[0], Run(path.parent), print, dense_only=True)
    expected = torch.load(path, weights_only=True)["model"]
    if harm == "gone":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        torch.save([1, 2], path)
    lines, outcomes = swept(*configs)
    assert begun_alone(lines) == 1 and [outcome.status for outcome in outcomes.values()] == ["finished"] * 2
    found = torch.load(path, weights_only=True)["model"]
    assert all(found[key].equal(expected[key]) for key in expected)
    torch.save([1, 2], path)
    (run_of(configs[0]).directory / "summary.json").unlink()
    (run_of(configs[0]).directory / "checkpoint.pt").unlink()
    summary = train(configs[0], run_of(configs[0]), lines.append)  # alone it trains its own
    assert summary.status == "finished" and summary.switch["shared"] is None


def test_what_decides_where_they_lie(tmp_path):
    config = config_of(tmp_path)
    alike = [
        *(config_of(tmp_path, method) for method in ("cp", "tucker")),
        config_of(tmp_path, rank="10x"),
        replace(config, cut="at_once"),
        replace(config, device="cuda"),
    ]
    assert {directory_of(other) for other in alike} == {directory_of(config)}
    other = [
        replace(config, lr=0.3),
        replace(config, epochs=5),
        replace(config, full_rank_epochs=3),
        replace(config, batch_size=25),
        replace(config, seed=1),
        replace(config, arch=replace(config.arch, width=0.5)),
        replace(config, arch=replace(config.arch, keep=[])),
        validating(config),
    ]
    assert len({directory_of(one) for one in (config, *other)}) == len(other) + 1
    assert directory_of(config).parent != directory_of(replace(config, lr=0.3)).parent
    assert directory_of(replace(config, seed=1)).parent == directory_of(config).parent
    for none in (
        replace(config, full_rank_epochs=0),
        replace(config, method=MethodConfig("dense")),
        replace(config, init_from="somewhere"),
        replace(config, method=MethodConfig("tt", decay="scaled")),
        replace(config, optim=replace(config.optim, core_lr="balanced")),
    ):
        assert directory_of(none) is None


def test_a_start_for_those_that_need_one(tmp_path, monkeypatch):
    one, two, other = config_of(tmp_path), config_of(tmp_path, "tucker"), config_of(tmp_path, seed=1)
    assert starts_of([job_of(one)]) == [] == starts_of([job_of(one), job_of(other)])
    (start,) = starts_of([job_of(config) for config in (one, two, other)])
    dense = config_of(tmp_path, "dense")
    assert starts_of([job_of(dense), job_of(one)]) == [start]
    assert starts_of([job_of(replace(dense, lr=0.3)), job_of(one)]) == [] == starts_of([job_of(dense)])
    with monkeypatch.context() as torchrun:
        torchrun.setenv("WORLD_SIZE", "2")
        assert starts_of([job_of(config) for config in (one, two, other)]) == []
    assert start.directory == directory_of(one) and start.dense_only
    swept(one, two)
    assert starts_of([job_of(one), job_of(two)]) == []
    lines, outcomes = swept(one, two, config_of(tmp_path, "btt"))
    assert begun_alone(lines) == 0 and len(outcomes) == 3


def test_a_run_waits_for_its_own_start_alone(tmp_path, monkeypatch):
    jobs = [job_of(config_of(tmp_path, method, seed=seed)) for seed in (0, 1) for method in ("tt", "tucker")]
    begun, others = [], threading.Semaphore(0)

    def made(job, environment, running, stop, sweep):
        begun.append((job.dense_only, job.config.seed))
        if (job.dense_only, job.config.seed) == (True, 1):
            assert all(others.acquire(timeout=60) for _ in range(3)), "begins last"
        elif not job.dense_only:
            others.release()
        return RunError("not made")

    monkeypatch.setattr(local, "_in_a_process", made)
    launch([*jobs, job_of(config_of(tmp_path, "dense", lr=0.3))], LauncherConfig("local", 2), print, lambda *_: None)
    assert begun[:3] == [(True, 0), (True, 1), (False, 0)] and begun[-2:] == [(False, 1)] * 2 and len(begun) == 7


def test_interrupted_and_gone_on_with(tmp_path, monkeypatch):
    configs = [config_of(tmp_path, method) for method in ("tt", "tucker")]
    with monkeypatch.context() as patch:
        stop_at(patch, 6)  # in the start's second epoch
        with pytest.raises(Interrupted):
            swept(*configs)
    lines, outcomes = swept(*configs)
    assert begun_alone(lines) == 0 and len(outcomes) == 2
    for config in configs:
        alone = replace(config, results_dir=str(tmp_path / "alone"))
        train(alone, run_of(alone), print)
        assert metrics(run_of(config)).equals(metrics(run_of(alone)))


@pytest.mark.parametrize("harm", ["damaged", "of another precision", "of other images", "of several processes"])
def test_a_start_that_cannot_be_used(tmp_path, harm):
    config = config_of(tmp_path)
    start = directory_of(config)
    train(config, Run(start), print, dense_only=True)
    if harm == "damaged":
        (start / "checkpoint.pt").write_bytes(b"no archive")
    elif harm == "of several processes":
        Run(start).write_summary(replace(Run(start).summary(), processes=2))
    elif harm == "of other images":
        summary = Run(start).summary()
        Run(start).write_summary(replace(summary, normalisation={"mean": [200.0], "std": summary.normalisation["std"]}))
    else:
        state = torch.load(start / "checkpoint.pt", weights_only=True)
        state["config"]["precision"] = "fp32" if state["config"]["precision"] == "bf16" else "bf16"
        torch.save(state, start / "checkpoint.pt")
    lines = []
    summary = train(config, run_of(config), lines.append)
    assert begun_alone(lines) == 1 and summary.switch["shared"] is None and summary.status == "finished"


def test_a_start_that_fails_is_said(tmp_path, monkeypatch):
    configs = [config_of(tmp_path, method) for method in ("tt", "tucker")]
    (tmp_path / "starts").write_text("a file where a folder should be")
    lines, outcomes = swept(*configs)
    assert sum("each run trains these epochs itself" in line for line in lines) == 1
    assert [outcome.status for outcome in outcomes.values()] == ["finished", "finished"]


def test_moved_runs_and_their_shared_start_go_on_where_they_are(tdc, tmp_path):
    tt = config_of(tmp_path / "results")
    start = directory_of(tt)
    train(tt, Run(start), dense_only=True)
    train(tt, run_of(tt))
    expected = metrics(run_of(tt))
    other = make(tmp_path / "results", "cp")
    other.write_summary(replace(other.summary(), config=plain(replace(tt, method=MethodConfig("cp")))))
    assert tdc("runs move method=tt to=other")[0] == 0 and start.exists()  # cp begins with it, too
    code, out, _ = tdc("runs move method=cp to=other")
    assert code == 0 and out.endswith("2 of 2 folders moved; their commands go on there with results_dir=other\n")
    assert not any((tmp_path / "results").iterdir())
    tt = replace(tt, results_dir="other")
    assert directory_of(tt).exists() and run_of(tt).summary().ended
    for name in ("summary.json", "metrics.csv", "checkpoint.pt"):
        (run_of(tt).directory / name).unlink()
    lines = []
    train(tt, run_of(tt), lines.append)
    assert begun_alone(lines) == 0 and metrics(run_of(tt)).equals(expected)
    code, out, _ = tdc("runs delete results_dir=other method=tt yes=true starts=false")
    assert code == 0 and out.endswith("1 of 1 folders deleted\n") and directory_of(tt).exists()
    code, out, _ = tdc("runs delete results_dir=other method=cp yes=true starts=false")
    assert code == 0 and out.endswith("1 of 1 folders deleted\n") and directory_of(tt).exists()
    train(tt, run_of(tt))
    code, out, _ = tdc("runs delete results_dir=other method=tt yes=true")
    assert code == 0 and "no other run begins with" in out and out.endswith("2 of 2 folders deleted\n")
    assert not directory_of(tt).exists()
    assert not any((tmp_path / "other").iterdir())
