"""An optimizer or a schedule named on the command line in the place of a yaml file's."""

from __future__ import annotations

import sys

import pytest

from tdcompress.config.compose import call_composed, typed
from tdcompress.tensor.errors import ConfigError

ADAMW = "torch.optim.AdamW"
COSINE = "torch.optim.lr_scheduler.CosineAnnealingLR"
LEFT = f"optim.optimizer: {ADAMW} takes no momentum: left out of optim=reference, whose weight_decay=0.0005 it has"

EVERY = "it is asked after every epoch (optim.interval)"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tdc"])


def _optim(*words):
    found = []
    call_composed(words, lambda composed: found.append((typed(composed).optim, composed.notes)))
    return found


@pytest.mark.parametrize("word", ["optim.optimizer={_target_: %s}", "optim.optimizer._target_=%s"])
def test_what_the_new_optimizer_takes_stays_and_the_rest_is_said(word):
    ((optim, notes),) = _optim(word % ADAMW)
    assert optim.optimizer == {"_target_": ADAMW, "weight_decay": 5e-4} and notes == (LEFT,)


def test_a_schedule_and_values_of_its_own():
    ((optim, notes),) = _optim(
        f"optim.scheduler={{_target_: {COSINE}, T_max: epochs}}", "optim.optimizer.dampening=0.5"
    )
    assert optim.scheduler == {"_target_": COSINE, "T_max": "epochs"} and optim.optimizer["dampening"] == 0.5
    assert notes == (f"optim.scheduler: {COSINE} takes no step_size, gamma: left out of optim=reference; " + EVERY,)


def test_each_run_of_a_sweep_has_its_own():
    found = _optim("-m", f"optim.optimizer._target_={ADAMW},torch.optim.SGD")
    assert [notes for _, notes in found] == [(LEFT,), ()]
    assert found[1][0].optimizer == {"_target_": "torch.optim.SGD", "momentum": 0.9, "weight_decay": 5e-4}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((f"optim.optimizer={{_target_: {ADAMW}, momentum: 0.9}}",), f"momentum: {ADAMW} takes none, known: betas,"),
        (("optim.optimizer.momentm=0.9",), "optim.optimizer.momentm: torch.optim.SGD takes none, known: momentum, da"),
        ((f"optim.scheduler._target_={COSINE}",), "needs T_max, for example optim.scheduler.T_max=epochs"),
    ],
)  # fmt: skip
def test_what_was_typed_and_does_not_fit_is_refused(words, answer):
    with pytest.raises(ConfigError, match=f"^[^\n]*{answer}[^\n]*$"):
        _optim(*words)


def test_what_a_file_of_ones_own_says_is_refused_as_well(tmp_path):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = f"# @package _global_\noptim:\n  optimizer:\n    _target_: {ADAMW}\n"
    (tmp_path / "conf/experiment/own.yaml").write_text(text)
    ((optim, notes),) = _optim("--config-dir=conf", "experiment=own")
    assert optim.optimizer == {"_target_": ADAMW, "weight_decay": 5e-4} and notes == (LEFT,)
    (tmp_path / "conf/experiment/own.yaml").write_text(f"{text}    momentum: 0.5\n")
    with pytest.raises(ConfigError, match=r"^optim\.optimizer\.momentum: torch\.optim\.AdamW takes none"):
        _optim("--config-dir=conf", "experiment=own")


def test_a_rate_that_an_experiment_gives_another_optimizer_is_said():
    assert _optim("experiment=trl", "optim=adamw", "lr=0.002")[0][1] == ()
    found = _optim("experiment=sequence", "optim=adamw", "seed=0", "method=tt")
    assert [notes for _, notes in found] == [("lr=0.1 is the experiment's; optim=adamw has lr=0.0015",)]
