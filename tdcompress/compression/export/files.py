"""A trained network as a file that needs nothing of this package, checked against the network that was trained."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...device.files import RunError, write_whole

Network = Callable[[Tensor], Tensor]


_BATCHES = (1, 5)  # images of a check: the batch dimension must be free
_LARGEST = 1e-4  # difference that passes, of outputs up to 1, and relative to the largest beyond


@dataclass(frozen=True)
class Trained:
    """A run's network as it was trained, its dense twin and its folded one, all for inference on the CPU."""

    directory: Path
    image: tuple[int, int, int]  # channels, height, width
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


WRITERS = {
    "onnx": Writer("model.onnx", _onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch": Writer("model.pt2", _torch, _read_torch),
    "dense": Writer("dense.pt", _dense, _read_dense),
}
