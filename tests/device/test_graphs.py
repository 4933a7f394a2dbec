"""Recorded passes: when they are replayed, and on CUDA that they compute what the network computes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.compression.swap import compress
from tdcompress.config.schema import ArchConfig
from tdcompress.device.graphs import Recorded
from tdcompress.device.precision import autocast
from tdcompress.models.build import build
from tdcompress.tensor.errors import ConfigError
from tdcompress.tensor.formats import FORMATS


class _Traced(Recorded):
    """Replays what a GPU is not needed for, and counts."""

    recordings = replays = 0

    def _recorded(self, images: Tensor):
        self.recordings += 1

        def replay(images: Tensor) -> Tensor:
            self.replays += 1
            return self.model(images)

        return replay


def test_a_whole_training_batch_is_replayed_and_recorded_once():
    forward = _Traced(nn.Linear(3, 2), batch_size=4)
    for _ in range(3):
        forward(torch.randn(4, 3))
    assert (forward.recordings, forward.replays) == (1, 3)


def test_the_rest_of_an_epoch_and_evaluation_are_not_replayed():
    forward = _Traced(nn.Linear(3, 2), batch_size=4)
    forward(torch.randn(3, 3))
    with torch.inference_mode():
        forward(torch.randn(4, 3))
    forward.model.eval()
    forward(torch.randn(4, 3))
    assert (forward.recordings, forward.replays) == (0, 0)


def test_what_cannot_be_recorded_is_named_and_leaves_the_cache_on(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(1))
    cached = torch.is_autocast_cache_enabled()
    with pytest.raises(ConfigError, match=r"not permitted when stream is capturing\): use cuda_graphs=false"):
        Recorded(nn.Linear(3, 2), batch_size=4)(torch.randn(4, 3))
    assert torch.is_autocast_cache_enabled() == cached


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", sorted(FORMATS))
def test_replayed_steps_are_those_of_the_network(method: str, precision: str, monkeypatch: pytest.MonkeyPatch):
    """Losses over steps with a smaller batch among them, running averages and evaluation, to rounding."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose rounding five steps make 0.4 % of a loss
    torch.manual_seed(0)
    model = build(ArchConfig(name="vgg11", width=0.25), 3, 10, 32)
    compress(model, method, "5x", (3, 32, 32), batch_size=32)
    model = model.cuda().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    twin = copy.deepcopy(model)
    images = torch.randn(5, 32, 3, 32, 32, device="cuda")
    labels = torch.randint(10, (5, 32), device="cuda")
    sizes = [32, 32, 17, 32, 32]

    def losses(network: nn.Module, forward) -> list[float]:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        network.train()
        found = []
        for batch, target, size in zip(images, labels, sizes, strict=True):
            with autocast(torch.device("cuda"), precision):
                outputs = forward(batch[:size].contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(outputs.float(), target[:size])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        network.eval()
        with torch.inference_mode():
            found.append(F.cross_entropy(forward(images[0]).float(), labels[0]).item())
        return found

    tolerance = 2e-3 if precision == "fp32" else 5e-2
    assert losses(model, Recorded(model, 32)) == pytest.approx(losses(twin, twin), rel=tolerance)
    assert all(a is not b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    for (name, mine), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(mine.float(), theirs.float(), rtol=10 * tolerance, atol=10 * tolerance), name
