"""Every parameter lies in memory in one piece, in the order of its own shape: others flatten and write them so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases import having
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import tdcompress
from tdcompress.layers.kinds import factorised

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = (8, 6, 6)


def built() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, padding=1)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 36, 12))


def compressed(format: str, **settings: object) -> nn.Sequential:
    return tdcompress.compress(built(), format, 3, IMAGE, keep=[], allow_larger=True, **settings)


def scattered(model: nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if not value.is_contiguous()]


def changed(model: nn.Sequential) -> Iterator[str]:
    """The model after each of all that gives its cores another plan, other values or another place."""
    yield "compressed"
    for layer in factorised(model).values():
        layer.use(layer.candidates[-1])
    yield "other plans"
    model.double().to(memory_format=torch.channels_last).float()
    yield "another type"
    for layer in factorised(model).values():
        graph = layer.graph.with_ranks(dict.fromkeys(layer.graph.bonds, 2))
        strided = [
            torch.randn(graph.shape(core)[::-1]).permute(*range(len(core.indices))[::-1]) for core in graph.cores
        ]
        layer.resize(graph, strided)
    yield "other ranks"


@pytest.mark.parametrize(("format", "layout"), having("channels", "paired"))
def test_cores(format: str, layout: str):
    model = compressed(format, layout=layout)
    assert len(factorised(model)) == 3
    for step in changed(model):
        assert not [name for name in scattered(model) if ".cores." in name], step


def test_cores_that_are_given_otherwise():
    model = compressed("tt", layout="channels")
    given = {
        name: {key: core.detach().transpose(0, -1).contiguous().transpose(0, -1) for key, core in layer.cores.items()}
        for name, layer in factorised(model).items()
    }
    assert any(not core.is_contiguous() for cores in given.values() for core in cores.values())
    again = compressed("tt", layout="channels", cores=given)
    assert not scattered(again)
    assert all(
        torch.equal(again.get_submodule(n).to_dense(), layer.to_dense()) for n, layer in factorised(model).items()
    )


def test_whoever_flattens_parameters(tmp_path: Path):
    model, images = compressed("tucker", layout="channels"), torch.randn(4, *IMAGE)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    vector = parameters_to_vector(model.parameters())
    wanted = model(images).detach()
    vector_to_parameters(torch.zeros_like(vector), model.parameters())
    assert not torch.equal(model(images), wanted)
    vector_to_parameters(vector, model.parameters())
    assert torch.equal(model(images), wanted)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = model(images).square().mean()
        value.backward()
        return value

    before = optimizer.step(loss).item()
    assert loss().item() < 0.5 * before


@pytest.mark.parametrize("keep_cores", [False, True])
@pytest.mark.parametrize("plan", ["model", "chain", "dense"])
def test_folded_weights(plan: str, keep_cores: bool, tmp_path: Path):
    model = compressed("tt", layout="channels")
    folded = tdcompress.fold(model, IMAGE, plan=plan, keep_cores=keep_cores)
    assert not scattered(folded) and list(folded.parameters())
    save_file(folded.state_dict(), tmp_path / "folded.safetensors")
    held = load_file(tmp_path / "folded.safetensors")
    assert all(torch.equal(held[key], value) for key, value in folded.state_dict().items())
