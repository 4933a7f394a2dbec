"""Who watches a training sees it, and changes no number."""

import json
import math
import sys
from dataclasses import replace

import pandas
import pytest
from training import config_in, metrics, run_of

from tdcompress.train import watch as profiler
from tdcompress.train import watch as progress
from tdcompress.train.network import network
from tdcompress.train.run import train

pytestmark = pytest.mark.usefixtures("small_images")


@pytest.mark.parametrize(("batch_size", "steps"), [(5, 5), (28, 2), (100, 1)])
def test_a_profile_is_a_table_and_a_trace_and_changes_no_number(tmp_path, monkeypatch, batch_size, steps):
    monkeypatch.setattr(profiler, "_ROWS", 1000)
    plain = config_in(tmp_path / "plain", batch_size=batch_size)
    train(plain, run_of(plain), print)
    config = replace(plain, profile=True, results_dir=str(tmp_path / "profile"))
    lines = []
    summary = train(config, run_of(config), lines.append)
    assert metrics(run_of(config)).equals(metrics(run_of(plain)))
    seconds = pandas.read_csv(run_of(config).directory / "metrics.csv").train_seconds
    assert math.isnan(seconds[0]) and summary.train_seconds_per_epoch == seconds[1]  # without the profiler
    assert next(line for line in lines if line.startswith("epoch 1")).endswith("%  profiled")
    (table,) = [line for line in lines if line.startswith("profile of")]
    assert table.startswith(f"profile of {steps} steps, trace in {run_of(config).directory / 'trace.json'}\n")
    rows = [line.split() for line in table.splitlines()]
    (fused,) = [row for row in rows if row[:1] == ["aten::_fused_sgd_"]]
    assert int(fused[-1]) == steps  # calls
    events = json.loads((run_of(config).directory / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "aten::_fused_sgd_" for event in events) == steps


def test_on_a_terminal_a_bar_is_drawn_and_every_step_taken(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PERIOD", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress.bar(iter(range(5)), "epoch 1/2", 2, 7)) == list(range(5))
    assert "epoch 1/2" in capsys.readouterr().err
    monkeypatch.undo()
    steps = iter(range(5))
    assert progress.bar(steps, "", 0, 5) is steps


def test_a_bar_is_drawn_while_layers_are_fitted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_PERIOD", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    network(config_in(tmp_path, rank=2, full_rank_epochs=0), 1, 10, 28)
    assert "layers" in capsys.readouterr().err


def test_tensorboard_shows_what_metrics_csv_holds(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_in(tmp_path, tensorboard=True)
    run = run_of(config)
    train(config, run, log=lambda line: None)
    events = EventAccumulator(str(run.directory / "tensorboard")).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("test_accuracy")]
    assert [step for step, _ in seen] == [1, 2]
    assert [value for _, value in seen] == pytest.approx(metrics(run).test_accuracy.tolist(), rel=1e-6)
