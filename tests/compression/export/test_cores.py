"""Files that hold cores: as small as the cores, put together by the runtime as it loads them, once and for all."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy
import onnx
import onnxruntime
import pytest
import torch
from cases import FACTORISED, WAYS
from onnx import numpy_helper
from torch import Tensor, nn

from tdcompress import compress, fold
from tdcompress.compression.comparison import state_file
from tdcompress.compression.export.files import WRITERS
from tdcompress.layers.kinds import factorised
from tdcompress.tensor.contraction.cost import Rates

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS, SHAPE = 32, (32, 6, 5)
RATES = Rates(call=2e-6)  # with which some convolutions stay a chain


class Every(nn.Module):
    """A convolution and a linear layer in every format and layout, and a norm behind the first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions, self.linears = nn.ModuleDict(), nn.ModuleDict()
        for name in (f"{format}_{layout}" for format, layout in WAYS[::-1]):
            self.convolutions[name] = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias="channels" in name)
            self.linears[name] = nn.Linear(CHANNELS, CHANNELS)
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.convolutions.values()
        x = self.norm(first(x)).relu()
        rows = torch.stack([layer(x) for layer in others]).mean((0, 3, 4))
        return torch.stack([layer(rows) for layer in self.linears.values()]).sum(0)


@dataclass(frozen=True)
class Written:
    """A network, the network of plain layers that holds its cores, and that one's file, as it is and as loaded."""

    network: nn.Module
    plain: nn.Module
    content: bytes
    file: onnx.GraphProto
    loaded: onnx.GraphProto


@pytest.fixture(scope="module")
def written(tmp_path_factory, one_thread) -> Written:
    torch.manual_seed(0)
    network = Every()
    settings = {"allow_larger": True, "factors": 2, "keep": [], "rates": RATES}
    layers = {f"*.{format}_{layout}": {"format": format, "layout": layout} for format, layout in WAYS}
    compress(network, FACTORISED[0], 4, SHAPE, layers=layers, **settings)
    assert len(factorised(network)) == 2 * len(layers)
    nn.init.uniform_(network.norm.running_var, 0.5, 2)
    plain = fold(network.eval(), SHAPE, batch_size=64, rates=RATES, keep_cores=True)
    content = WRITERS["onnx"].write(plain, SHAPE, {})
    options, path = onnxruntime.SessionOptions(), str(tmp_path_factory.mktemp("loaded") / "model.onnx")
    options.optimized_model_filepath, options.log_severity_level = path, 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Written(network, plain, content, onnx.load_from_string(content).graph, onnx.load(path).graph)


def bound(network: nn.Module) -> float:
    """Bytes that a file of cores may have."""
    parameters = sum(p.numel() for p in network.parameters())
    layers = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) + len(factorised(network))
    return 1.1 * 4 * parameters + 64 * 1024 + 2048 * layers


def entries(values: numpy.ndarray | Tensor) -> tuple[float, ...]:
    """What a tensor holds, however it lies."""
    return tuple(sorted(numpy.asarray(values, dtype=numpy.float32).ravel().tolist()))


def test_the_file_is_as_small_as_the_cores(written):
    dense = sum(math.prod(layer.weight_shape) for layer in factorised(written.network).values())
    assert len(written.content) <= bound(written.network) < 4 * dense
    assert len(state_file(written.network)) <= bound(written.network)
    assert len(state_file(written.plain)) <= bound(written.network)


def test_what_it_holds_are_the_cores(written):
    held = Counter(entries(numpy_helper.to_array(one)) for one in written.file.initializer if one.data_type == 1)
    cores = [core.detach() for layer in factorised(written.network).values() for core in layer.tensors()]
    assert all(entries(core) in held for core in cores)
    biases = [layer.bias.detach() for layer in factorised(written.network).values() if layer.bias is not None]
    others = Counter(map(entries, [*cores, *biases, *written.network.norm.state_dict().values()]))
    assert not held - others


def test_the_runtime_puts_them_together_as_it_loads(written):
    kinds = Counter(node.op_type for node in written.loaded.node)
    modules = [*written.plain.modules()]
    assert "Einsum" in {node.op_type for node in written.file.node}
    assert not {"Einsum", "BatchNormalization", "Expand"} & kinds.keys()
    assert kinds["Conv"] == sum(isinstance(module, nn.Conv1d | nn.Conv2d) for module in modules) > len(WAYS)
    products = kinds["Gemm"] + kinds["FusedGemm"] + kinds["MatMul"]
    assert products == sum(isinstance(module, nn.Linear) for module in modules)


def test_biases_are_constants(written):
    for graph in (written.file, written.loaded):
        constants = {one.name for one in graph.initializer}
        found = [
            name for node in graph.node if "Conv" in node.op_type or "Gemm" in node.op_type for name in node.input[2:3]
        ]
        assert len(found) > len(WAYS) // 4 and set(found) - {""} <= constants


def test_it_computes_the_same(written):
    read = WRITERS["onnx"].read(written.content, written.plain)
    for batch in (1, 5):
        images = torch.randn(batch, *SHAPE)
        with torch.inference_mode():
            torch.testing.assert_close(read(images), written.network(images), rtol=1e-4, atol=1e-4)


def test_three_axes_and_transposed_ones():
    twin = nn.Sequential(nn.Conv3d(8, 12, 3, padding=1), nn.ConvTranspose3d(12, 8, (2, 3, 2), stride=2), nn.Flatten())
    shape, x = (8, 4, 5, 6), torch.randn(3, 8, 4, 5, 6)
    model = compress(twin, "tt", 3, shape, keep=[], rates=RATES, plan="chain").eval()
    plain = fold(model, shape, plan="chain", rates=RATES, keep_cores=True)
    loaded = WRITERS["onnx"].read(WRITERS["onnx"].write(plain, shape, {}), plain)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plan", ["chain", "dense"])
def test_a_single_core_that_is_frozen_stays_so(plan: str):
    model = compress(nn.Sequential(nn.Linear(64, 64)), "tt", 4, (64,), keep=[], layout="channels")
    model[0].cores["core1"].requires_grad_(False)
    plain = fold(model, (64,), plan=plan, rates=RATES, keep_cores=True)
    frozen = [parameter for parameter in plain.parameters() if not parameter.requires_grad]
    assert [parameter.numel() for parameter in frozen] == [model[0].cores["core1"].numel()]
    torch.testing.assert_close(frozen[0].flatten().sort()[0], model[0].cores["core1"].detach().flatten().sort()[0])


@pytest.mark.parametrize("format", FACTORISED)
def test_the_older_exporter_leaves_the_batch_open(format: str, tmp_path):
    layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    model = compress(layers, format, 3, (64,), keep=[], plan="contract", allow_larger=True).eval()
    path, open_batch = tmp_path / "model.onnx", {"x": {0: "batch"}, "y": {0: "batch"}}
    shown, names = torch.randn(8, 64), {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": open_batch}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older one
        torch.onnx.export(model, (shown,), path, dynamo=False, **names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (8, 3, 1):
        x = torch.randn(batch, 64)
        (found,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-4, atol=1e-5)
