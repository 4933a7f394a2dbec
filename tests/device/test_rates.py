"""Rates of a device: what is timed, and what is kept of it."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from cases import Made

from tdcompress.device import rates
from tdcompress.tensor.contraction.cost import Rates

CPU = torch.device("cpu")
SPEEDS = {
    **{"convolution": 7e9, "pointwise": 6e9, "grouped": 5e9, "depthwise": 1e9, "depthwise_3d": 2e8},
    **{"product": 8e9, "batched": 3e9},
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_kind_of_call_is_timed(monkeypatch, mode):
    def seconds(call, device) -> float:
        """Of a device that takes so long for each kind, and no time for the rest; backward twice what forward does."""
        with Made() as made:
            call()
        forward = [(kind, macs) for kind, macs in made.macs.items() if macs > 10**5]
        ((kind, macs),) = forward or [("product", 1e-9)]
        return macs * (1 if kind in ("product", "batched") else 3) / SPEEDS[kind]  # whose backward is of their kind

    monkeypatch.setattr(rates, "seconds", seconds)
    monkeypatch.setattr(rates, "_LONG", 0.0)
    with mode():
        found = rates.measured(CPU, torch.float32)
    assert {kind: getattr(found, kind) for kind in SPEEDS} == pytest.approx(SPEEDS, rel=1e-6)
    assert (found.lanes, found.width) == (16, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rates_of_this_machine(dtype: torch.dtype, monkeypatch):
    monkeypatch.setattr(rates, "_LONG", 0.0)
    state = torch.get_rng_state()
    found = asdict(rates.measured(CPU, dtype))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(0 < value < float("inf") for value in found.values())


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where rates are kept; measured are others each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    turns = iter(range(1, 9))
    monkeypatch.setattr(rates, "measured", lambda device, dtype: replace(Rates(), memory=float(next(turns))))
    monkeypatch.setattr(rates, "_is_idle", lambda device: True)
    yield tmp_path / "tdcompress" / "rates.json"
    rates._kept.cache_clear()


def kept() -> float:
    rates._kept.cache_clear()  # as in another process
    return rates.device_rates(CPU, torch.float32).memory


def test_rates_are_measured_once(file):
    assert [kept(), kept()] == [1.0, 1.0]
    file.unlink()
    assert kept() == 2.0


def test_a_user_without_a_home_measures_each_time(file, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "~")
    monkeypatch.chdir(tmp_path)
    assert [kept(), kept()] == [1.0, 2.0] and not [*tmp_path.iterdir()]


def test_rates_of_a_busy_machine_are_kept_until_it_is_idle(file, monkeypatch):
    with monkeypatch.context() as busy:
        busy.setattr(rates, "_is_idle", lambda device: False)
        with pytest.warns(UserWarning, match="other work takes its cores"):
            assert kept() == 1.0
        with pytest.warns(UserWarning, match="other work takes its cores"):
            assert kept() == 1.0
    assert kept() == 2.0
    monkeypatch.setattr(rates, "_is_idle", lambda device: False)
    assert kept() == 2.0


@pytest.mark.parametrize(("share", "idle"), [(1.0, True), (0.9, True), (0.5, False), (0.1, False)])
def test_a_machine_is_idle_where_every_thread_has_a_core(monkeypatch, share: float, idle: bool):
    wall = itertools.count(0, 0.01)
    run = iter((0.0, share * 0.2 * torch.get_num_threads()))
    monkeypatch.setattr(rates, "time", SimpleNamespace(perf_counter=wall.__next__, process_time=run.__next__))
    assert rates._is_idle(CPU) == idle


def test_each_number_of_threads_has_its_own(file, monkeypatch):
    def by(threads: int) -> float:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return rates.device_rates(CPU, torch.float32).memory

    rates._kept.cache_clear()
    assert [by(1), by(2), by(1), by(2)] == [1.0, 2.0, 1.0, 2.0]
    assert len(json.loads(file.read_text())) == 2


@pytest.mark.parametrize("change", ["a field less", "a field more", "no fields", "no json"])
def test_what_another_version_kept_is_measured_anew(file, change: str):
    kept()
    known = json.loads(file.read_text())
    ((key, values),) = known.items()
    fewer = {name: value for name, value in values.items() if name != "grouped"}
    found = {"a field less": fewer, "a field more": {**values, "other": 1.0}, "no fields": 3}
    file.write_text(json.dumps({"another device": values, key: found[change]}) if change in found else "{")
    assert [kept(), kept()] == [2.0, 2.0]
    assert ("another device" in json.loads(file.read_text())) == (change in found)
