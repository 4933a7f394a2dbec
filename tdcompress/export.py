"""``tdc export``: a run's trained network as a file that needs nothing of this package."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint
from .bench.clock import compare
from .bench.table import show
from .config import ConfigError
from .folding import PLANS, fold
from .identity import typed
from .model import Image, dense, initial
from .plans import use_plans
from .pretrained import Weights
from .runs import RunError, write_whole

Network = Callable[[Tensor], Tensor]
_BATCHES = (1, 5)  # images of a check: the batch dimension must be free
_LARGEST = 1e-4  # difference that passes, of outputs up to 1, and relative to the largest beyond
_ROUNDS = 21


@dataclass(frozen=True)
class Trained:
    """A run's network as it was trained, its dense twin and its folded one, all for inference on the CPU."""

    directory: Path
    image: Image
    factorised: nn.Module
    dense: nn.Module
    folded: nn.Module


@dataclass(frozen=True)
class Writer:
    """A kind of file, called ``name``. ``write`` gives its bytes, ``read`` the network that whoever reads them has."""

    name: str
    write: Callable[[Trained], bytes]
    read: Callable[[bytes, Trained], Network]
    needs: tuple[str, ...] = ()


def run(options: Mapping[str, str]) -> None:
    """``tdc export run=DIR format=onnx [output=FILE] [plan=model]``: write the file, print what each network takes.

    Raises ``ConfigError`` for bad options, ``RunError`` for a directory without a trained network, and where what was
    written is not what was trained; then there is no file.
    """
    known = {"run": "", "format": "", "output": "", "plan": "model"}
    for key in options:
        if key not in known:
            raise ConfigError(f"unknown key '{key}', known: {', '.join(known)}")
    chosen = {**known, **options}
    for key, example in (("run", "results/runs/digits/lenet/tt-8/seed0"), ("format", "onnx")):
        if not chosen[key]:
            raise ConfigError(f"tdc export needs {key}=, for example {key}={example}")
    if chosen["format"] not in WRITERS:
        raise ConfigError(f"unknown format '{chosen['format']}', known: {', '.join(WRITERS)}")
    writer = WRITERS[chosen["format"]]
    missing = [package for package in writer.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"format={chosen['format']} needs {missing[0]}: pip install -e '.[export]'")
    trained = load(Path(chosen["run"]), chosen["plan"])
    path = Path(chosen["output"] or trained.directory / writer.name)
    written = export(trained, writer, path)
    _print_times(trained, path, written)
    print(path)


def load(directory: Path, plan: str = "model") -> Trained:
    """The network of a run's newest checkpoint, folded along ``plan`` (see ``fold``) for single images.

    Raises ``RunError`` where there is no run, no checkpoint, or one that its own configuration does not fit.
    """
    if plan not in PLANS:
        raise ConfigError(f"unknown plan '{plan}', known: {', '.join(PLANS)}")
    if not directory.is_dir():
        raise RunError(f"there is no run in {directory}; tdc runs lists those there are")
    state = checkpoint.load(directory, print)
    if state is None:
        raise RunError(f"{directory} has no checkpoint: no epoch of it has ended")
    config = typed(state["config"])
    config = replace(config, precision="fp32")
    try:
        with torch.random.fork_rng([]):
            model, image = initial(config, torch.device("cpu"), Weights(str(directory), state["model"], None))
        use_plans(model, state["plans"])
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{directory}: the checkpoint does not fit this network ({reason})") from None
    model = model.to(memory_format=torch.channels_last).eval()
    twin, _ = dense(config)
    twin.load_state_dict(fold(model, image, plan="dense").state_dict())
    twin = twin.to(memory_format=torch.channels_last).eval()
    return Trained(directory, image, model, twin, fold(model, image, plan=plan))


def export(trained: Trained, writer: Writer, path: Path) -> Network:
    """Write ``path``, whole or not at all, and give the network that it holds.

    Raises ``RunError`` where that network's outputs are not those that were trained, before anything is written.
    """
    content = writer.write(trained)
    written = writer.read(content, trained)
    for batch in _BATCHES:
        images = torch.randn(batch, *trained.image, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            found, wanted = written(images), trained.factorised(images)
        difference = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1))
        if not difference <= _LARGEST:
            raise RunError(
                f"{path} is not written: its outputs for {batch} images differ from the trained network's by "
                f"{difference:.1e}, more than {_LARGEST:.0e}"
            )
    write_whole(path, lambda file: file.write(content))
    return written


def _onnx(trained: Trained) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own code
        program: Any = torch.onnx.export(
            trained.folded,
            (_images(trained),),
            dynamo=True,
            dynamic_shapes=_free_batch(),
            input_names=["images"],
            output_names=["scores"],
            verbose=False,
        )
    return bytes(program.model_proto.SerializeToString())


def _read_onnx(content: bytes, trained: Trained) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _torch(trained: Trained) -> bytes:
    file = io.BytesIO()
    program = torch.export.export(trained.folded, (_images(trained),), dynamic_shapes=_free_batch())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that lie channels last
        torch.export.save(program, file)
    return file.getvalue()


def _read_torch(content: bytes, trained: Trained) -> Network:
    return torch.export.load(io.BytesIO(content)).module()


def _dense(trained: Trained) -> bytes:
    file = io.BytesIO()
    torch.save(trained.dense.state_dict(), file)
    return file.getvalue()


def _read_dense(content: bytes, trained: Trained) -> Network:
    trained.dense.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    return trained.dense


def _images(trained: Trained) -> Tensor:
    return torch.zeros(2, *trained.image)


def _free_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _print_times(trained: Trained, path: Path, written: Network) -> None:
    """A table of milliseconds for one image: medians, each network in turn with the dense one."""
    images = torch.randn(1, *trained.image)
    networks = {"as trained": trained.factorised, "folded": trained.folded, "dense": trained.dense}
    calls = {name: _inference(network, images) for name, network in networks.items()}
    times = compare(calls["dense"], calls | {path.name: _inference(written, images)}, _ROUNDS)
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    rows = [
        {"network": name, "parameters": counts.get(name), "ms": pairs.rival_ms, "speedup": pairs.ratio}
        for name, pairs in times.items()
    ]
    rows[-1]["bytes"] = path.stat().st_size
    show(rows, ("network", "parameters", "bytes", "ms", "speedup"), "one image on this CPU; speedup: dense / this one")


def _inference(network: Network, images: Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode():
            network(images)

    return forward


WRITERS = {
    "onnx": Writer("model.onnx", _onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch": Writer("model.pt2", _torch, _read_torch),
    "dense": Writer("dense.pt", _dense, _read_dense),
}
