"""A trained network as a file, checked against the network that was trained."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...config.schema import TrainConfig
from ...device.files import RunError, write_whole
from ...tensor.errors import ConfigError
from ..comparison import Image, Network, state_file
from ..files.cores import file_of, load
from .fold import fold

WEIGHTS = ("cores", "folded")
"""What a file holds: cores, put together as it is loaded, or what ``fold`` made of them."""

_PLANNED = 64  # images of a pass: layers that are fast then are fast for one image too, but not the other way round
_BATCHES = (1, 5)  # images of a check: the batch dimension must be free
_LARGEST = 1e-4  # difference that passes, of outputs up to 1, and relative to the largest beyond


@dataclass(frozen=True)
class Trained:
    """A run's network as it was trained, and its dense twin, both for inference on the CPU."""

    directory: Path
    config: TrainConfig
    image: Image
    factorised: nn.Module
    dense: nn.Module

    def holding(self, weights: str | None, of_plain: bool = True) -> nn.Module:
        """A network that computes the same with these ``weights``, of plain layers or as trained; None: the twin."""
        if weights is None:
            return self.dense
        return plain(self.factorised, self.image, weights) if of_plain else self.factorised


def plain(model: nn.Module, image: Image, weights: str) -> nn.Module:
    """``model`` of plain layers, with these ``weights``, as a file is to hold it."""
    return fold(model, image, batch_size=_PLANNED, keep_cores=weights == "cores")


@dataclass(frozen=True)
class Writer:
    """A kind of file, called ``name``.

    ``write`` gives its bytes for a network, an image's shape, and what is to be said of it as far as that is known: the
    plain ``config`` that it was trained with, and by which ``mean`` and ``std`` of pixels its images are normalised;
    ``read`` the network that whoever reads them has, who may have the dense twin, with other weights.
    ``weights``: what it can hold, the default first; none: dense weights only. ``needs``: packages. ``of_plain``:
    whether what is written is a network of plain layers, which needs nothing of this package.
    """

    name: str
    write: Callable[[nn.Module, Image, Mapping[str, Any]], bytes]
    read: Callable[[bytes, nn.Module], Network]
    weights: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    of_plain: bool = True

    def refuse_missing(self) -> None:
        """Raise ``ConfigError`` where a package that this kind of file needs is not installed."""
        missing = [package for package in self.needs if importlib.util.find_spec(package) is None]
        if missing:
            raise ConfigError(f"{self.name} needs {missing[0]}: pip install -e '.[export]'")


def export(
    trained: Trained, writer: Writer, network: nn.Module, path: Path, said: Mapping[str, Any] | None = None
) -> Network:
    """Write ``network``, one of those of ``trained``, as ``path``, whole or not at all; the network that it holds.

    ``said``: see ``Writer``. Raises ``RunError`` where that network's outputs are not those that were trained, before
    anything is written.
    """
    content = writer.write(network, trained.image, said or {})
    written = writer.read(content, trained.dense)
    for batch in _BATCHES:
        images = torch.randn(batch, *trained.image, generator=torch.Generator().manual_seed(batch), device="cpu")
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


def _onnx(network: nn.Module, image: Image, said: Mapping[str, Any]) -> bytes:
    import onnxscript.optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own code
        program: Any = torch.onnx.export(
            network,
            (_images(image),),
            dynamo=True,
            dynamic_shapes=_free_batch(),
            input_names=["images"],
            output_names=["scores"],
            optimize=False,  # it would put the weights together
            verbose=False,
        )
    # Shapes and biases of zeros become constants, products of cores stay products.
    onnxscript.optimizer.optimize_ir(
        program.model, input_size_limit=64, output_size_limit=1024, should_fold=_unless_of_cores
    )
    model = program.model_proto
    del model.graph.value_info[:]  # shapes in between: whoever loads the file infers them
    for node in model.graph.node:
        del node.metadata_props[:]
    for key, value in _normalisation(said).items():
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


def _normalisation(said: Mapping[str, Any]) -> dict[str, str]:
    """As files have it, in an order that is always the same, as their bytes are to be."""
    return {key: json.dumps(said[key]) for key in ("mean", "std") if key in said}


def _unless_of_cores(node: Any) -> bool | None:
    return False if node.op_type == "Einsum" else None


def _read_onnx(content: bytes, _: nn.Module) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])


def _torch(network: nn.Module, image: Image, said: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and "weight" in layer._parameters:
            layer.to(memory_format=torch.channels_last)  # a program computes with them as they lie
    program = torch.export.export(network, (_images(image),), dynamic_shapes=_free_batch())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that lie channels last
        torch.export.save(program, file, extra_files=_normalisation(said))
    return file.getvalue()


def _read_torch(content: bytes, _: nn.Module) -> Network:
    return torch.export.load(io.BytesIO(content)).module()


def _read_layers(content: bytes, dense: nn.Module) -> Network:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        return load(path, copy.deepcopy(dense))


def _read_state(content: bytes, dense: nn.Module) -> Network:
    dense.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    return dense


def _images(image: Image) -> Tensor:
    return torch.zeros(2, *image, device="cpu")


def _free_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


WRITERS = {
    "onnx": Writer("model.onnx", _onnx, _read_onnx, WEIGHTS, ("onnx", "onnxscript", "onnxruntime")),
    "torch": Writer("model.pt2", _torch, _read_torch, WEIGHTS[::-1]),
    "safetensors": Writer(
        "model.safetensors",
        lambda network, _, said: file_of(network, said.get("config")),
        _read_layers,
        WEIGHTS[:1],
        of_plain=False,
    ),
    "dense": Writer("dense.pt", lambda network, *_: state_file(network), _read_state),
}
