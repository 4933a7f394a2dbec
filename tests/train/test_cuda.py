"""What only a CUDA device shows of a training: nothing waits for it, memory is what a chain by hand takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import config_in, metrics, run_of, stopped

from tdcompress.bench.memory import step_memory
from tdcompress.bench.training import Network, TrainingStep
from tdcompress.config.schema import ArchConfig, MethodConfig
from tdcompress.data.datasets import DeviceDataset
from tdcompress.device.files import RunError
from tdcompress.tensor.formats import FORMATS
from tdcompress.train.run import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("method", sorted(FORMATS))
def test_no_step_waits_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, graphs: bool
) -> None:
    """From the third step of an epoch on (by then kernels are chosen and graphs recorded) torch refuses to wait."""
    whole, watched = DeviceDataset.epoch, 0

    def epoch(self, batch_size, seed, epoch, shuffle, start=0, world=None):
        nonlocal watched
        for step, batch in enumerate(whole(self, batch_size, seed, epoch, shuffle=shuffle, start=start)):
            if step == 2 and shuffle:
                torch.cuda.set_sync_debug_mode("error")
                watched += 1
            yield batch
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(DeviceDataset, "epoch", epoch)
    config = config_in(tmp_path, device="cuda", method=MethodConfig(method), cuda_graphs=graphs)
    try:
        assert train(config, run_of(config), print).status == "finished"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watched == 2


@pytest.mark.parametrize("full_rank_epochs", [0, 1])
def test_stopped_at_every_step_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_rank_epochs: int
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config = config_in(tmp_path / "whole", device="cuda", full_rank_epochs=full_rank_epochs)
    train(config, run_of(config), print)
    broken = replace(config, results_dir=str(tmp_path / "broken"))
    for _ in range(8):
        stopped(broken, monkeypatch, 1)
    train(broken, run_of(broken), print)
    found, wanted = metrics(run_of(broken)), metrics(run_of(config))
    assert found.train_loss.tolist() == pytest.approx(wanted.train_loss.tolist(), rel=1e-4)
    assert found.lr.tolist() == wanted.lr.tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["cp", "tucker", "tt"])
def test_peak_memory_is_that_of_a_chain_by_hand(method: str, precision: str) -> None:
    network = Network(
        *("vgg16", 0.5, "cifar10", 128, precision, method, "10x", "chain"), layout="channels", cuda_graphs=False
    )
    ours, by_hand = (
        step_memory(TrainingStep(one, torch.device("cuda"))) for one in (network, replace(network, by_hand=True))
    )
    assert ours <= 1.05 * by_hand


def test_out_of_memory_names_the_batch_to_try(tmp_path: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(0.01)
    arch = ArchConfig("vgg16", width=4.0)
    config = config_in(tmp_path, device="cuda", arch=arch, method=MethodConfig("dense"), batch_size=100, rank=None)
    try:
        with pytest.raises(RunError, match=r"^out of memory on .*; try batch_size=50"):
            train(config, run_of(config), print)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
